"""What has changed since a table was measured, of the software that its entries depend on."""

__all__ = ["software_changes"]

from collections.abc import Iterator

from mla_tune.environment import Environment
from mla_tune.registry import BACKENDS
from mla_tune.table import Table, TableFile
from mla_tune.table.software import compared
from mla_tune.versions import minor_release

BELOW = ("torch", "cuda", "hip", "driver")
"""What runs every kernel. An engine uses a table whatever these are; a night measures anew."""


def software_changes(file: TableFile, environment: Environment) -> Iterator[str]:
    """Each thing that a retune is due for, as ``name old → new``.

    Args:
        file: the table.
        environment: what is installed here.
    """
    now, was = environment.software, file.header.software
    if BACKENDS[file.header.backend].is_vllm:
        measured, found = compared(Table(file.header, file.entries), now, environment.digests)
        for name, value in measured.items():
            if found[name] != value:
                yield f"{name} {value} → {found[name]}"
    for name in BELOW:
        old, new = was.get(name, "none"), now.get(name, "none")
        if _compared(name, old) != _compared(name, new):
            yield f"{name} {old} → {new}"


def _compared(name: str, version: str) -> str:
    """A driver's number says nothing of what is the same; of the others a patch release does."""
    return version if name == "driver" else minor_release(version)
