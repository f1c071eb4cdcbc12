"""A name for one GPU that does not give its serial away."""

__all__ = ["card_hash"]

import hashlib

SALT = b"mla-tune card"


def card_hash(identity: str) -> str:
    """Eight hexadecimal digits for a device's identity: the same card has the same on every host.

    ``identity`` is what `mla_tune.device.choice.device_identity` says: a GPU's UUID, which it has
    for life as it has its serial.
    """
    return hashlib.blake2b(identity.encode(), digest_size=4, key=SALT).hexdigest()
