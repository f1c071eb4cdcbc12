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

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mla_tune.table.entry import CaseResult, Entry, Speedup
    from mla_tune.table.header import SCHEMA_VERSION, Header
    from mla_tune.table.lookup import DEFAULT_WITHIN, Lookup, Table
    from mla_tune.table.publication import Publication, merge
    from mla_tune.table.store import TableFile, check_mergeable

_WHERE = {
    "entry": ("CaseResult", "Entry", "Speedup"),
    "header": ("SCHEMA_VERSION", "Header"),
    "lookup": ("DEFAULT_WITHIN", "Lookup", "Table"),
    "publication": ("Publication", "merge"),
    "store": ("TableFile", "check_mergeable"),
}


def __getattr__(name: str) -> Any:
    # Who shows a table needs neither lookups in it nor what writing takes.
    for module, names in _WHERE.items():
        if name in names:
            value = getattr(importlib.import_module(f"mla_tune.table.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
