"""The YAML lookup table: its schema, its file, and lookups in it."""

__all__ = [
    "DEFAULT_WITHIN",
    "SCHEMA_VERSION",
    "CaseResult",
    "Entry",
    "Header",
    "Lookup",
    "Publication",
    "Speedup",
    "Table",
    "TableFile",
    "check_mergeable",
    "merge",
]

from typing import TYPE_CHECKING, Any

from mla_tune.table.entry import CaseResult, Entry, Speedup
from mla_tune.table.header import SCHEMA_VERSION, Header
from mla_tune.table.lookup import DEFAULT_WITHIN, Lookup, Table
from mla_tune.table.store import TableFile, check_mergeable

if TYPE_CHECKING:
    from mla_tune.table.publication import Publication, merge


def __getattr__(name: str) -> Any:
    # Writers lock files; who reads a table need not load what that takes.
    if name in ("Publication", "merge"):
        import mla_tune.table.publication

        return getattr(mla_tune.table.publication, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
