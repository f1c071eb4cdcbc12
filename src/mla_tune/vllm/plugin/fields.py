"""Attributes that are set together and put back together."""

__all__ = ["Fields", "exchange"]

from typing import Any

# Names of attributes and their values.
Fields = tuple[tuple[str, Any], ...]

_NOT_SET = object()


def exchange(owner: Any, fields: Fields) -> Fields:
    """Set ``fields`` on ``owner``, and return the fields that put back what was there before.

    An attribute that only its class had is removed again, not set to the class's value.
    """
    if not fields:  # the usual step: looking up costs more than this
        return fields
    own = vars(owner)
    before = tuple([(name, own.get(name, _NOT_SET)) for name, _ in fields])
    for name, value in fields:
        if value is _NOT_SET:
            own.pop(name, None)
        else:
            own[name] = value
    return before
