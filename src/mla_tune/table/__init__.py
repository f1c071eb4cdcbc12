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

from mla_tune.table.entry import CaseResult, Entry, Speedup
from mla_tune.table.header import SCHEMA_VERSION, Header
from mla_tune.table.lookup import DEFAULT_WITHIN, Lookup, Table
from mla_tune.table.publication import Publication, merge
from mla_tune.table.store import TableFile, check_mergeable
