"""Tables on disk, read with line numbers."""

__all__ = ["TABLE", "TableFile", "check_mergeable"]

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mla_tune.errors import InputError
from mla_tune.files.document import MOST_BYTES, Document, Kind
from mla_tune.files.regular_file import read_text
from mla_tune.plan.plan import Plan
from mla_tune.registry import BACKENDS
from mla_tune.table.as_written import as_written
from mla_tune.table.entry import Entry
from mla_tune.table.header import SCHEMA_VERSION, WITHOUT_BETWEEN, Header
from mla_tune.table.text import one_line

if TYPE_CHECKING:
    from mla_tune.table.between import Between

TABLE = Kind("table")


@dataclass(frozen=True)
class TableFile:
    """A table as it stands on disk: what it says, and the document that says it."""

    header: Header
    entries: tuple[Entry, ...]
    document: Document = field(repr=False)
    between: "Between | None" = None

    @classmethod
    def load(cls, path: Path) -> "TableFile":
        """Read a table.

        Raises:
            InputError: missing, not a table, a newer schema version, or an entry that is wrong;
                names the line.
        """
        return cls.parse(path, read_text(path, what=TABLE.name, most_bytes=MOST_BYTES))

    @classmethod
    def parse(cls, path: Path, text: str) -> "TableFile":
        """The table that ``text`` is, as the contents of ``path``. Raises as `load` does."""
        written = as_written(text, lambda part: Document.parse(path, part, TABLE).data)
        if written is None:
            return cls.from_document(Document.parse(path, text, TABLE))
        document = Document(path, text, written.header)
        header, between, _ = _above(document)
        if any(any(header.outside(plan)) for plan in written.plans):
            for index, entry in enumerate(written.entries):
                _refuse_out_of_bounds(document, header, index, entry, set())
        _refuse_repeated(document, written.entries)
        return cls(header, written.entries, document, between)

    @classmethod
    def from_document(cls, document: Document) -> "TableFile":
        """The table that a document holds. Raises as `load` does."""
        header, between, rows = _above(document)
        entries: list[Entry] = []
        within: set[Plan] = set()
        for index, row in enumerate(rows):
            with _named(document, ("entries", index)):
                entries.append(Entry.model_validate(row))
            _refuse_out_of_bounds(document, header, index, entries[-1], within)
        _refuse_repeated(document, entries)
        return cls(header, tuple(entries), document, between)


def _above(document: Document) -> tuple[Header, "Between | None", list[Any]]:
    """What stands above the entries, and these as they stand there."""
    data = dict(document.data)
    version = data.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise InputError(
            f"{document.path}: not an mla-tune table: schema_version is {version!r}",
            valid=f"schema_version: {SCHEMA_VERSION}",
        )
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{document.where(('schema_version',))}: table of schema version {version}; this "
            f"mla-tune reads up to {SCHEMA_VERSION}",
            remedy="upgrade mla-tune, or write to another folder with --out",
        )
    rows = data.pop("entries", None)
    rows = [] if rows is None else rows
    if not isinstance(rows, list):
        where = document.where(("entries",))
        raise InputError(f"{where}: entries is {rows!r}", valid="a list of entries")
    # Before version 3 the key was as unknown as any other.
    section = data.pop("between", None) if version > WITHOUT_BETWEEN else None
    with _named(document, ()):
        header = Header.model_validate(data)
    return header, _between(document, header, section), rows


@contextmanager
def _named(document: Document, location: tuple[str | int, ...]) -> Iterator[None]:
    """Turn a schema error into one that names the file, the line and the key."""
    try:
        yield
    except ValidationError as error:
        detail = error.errors()[0]
        inner = (*location, *detail["loc"])
        key = ".".join(map(str, inner)) or "table"
        message = detail["msg"].removeprefix("Value error, ")
        raise InputError(f"{document.where(inner)}: {key}: {message}") from None


def _between(document: Document, header: Header, section: Any) -> "Between | None":
    """The model of a table, all of whose values an engine may be given."""
    if section is None:
        return None
    from mla_tune.table.between import Between  # few tables have one

    with _named(document, ("between",)):
        between = Between.model_validate(section)
    known = BACKENDS[header.backend].cut
    if between.cut != known:
        raise InputError(
            f"{document.where(('between',))}: between: {header.backend} does not cut a batch by "
            f"{between.cut!r}",
            valid=f"{known!r}" if known else "no such section",
            remedy="remove the section; the next run that tunes the table makes it anew",
        )
    for value in (*between.values, *between.defaults.values()):
        for knob, valid in header.outside(Plan(num_kv_splits=value)):
            raise InputError(
                f"{document.where(('between',))}: between: {header.backend} cannot have {knob} "
                f"{value!r}",
                valid=valid,
                remedy="remove the section; the next run that tunes the table makes it anew",
            )
    return between


def _refuse_out_of_bounds(
    document: Document, header: Header, index: int, entry: Entry, within: set[Plan]
) -> None:
    """``within`` holds plans that are known to be within bounds, and gets those that are."""
    for location, plan in entry.plans():
        if plan in within:
            continue
        for knob, valid in header.outside(plan):
            inner = ("entries", index, *location, knob)
            raise InputError(
                f"{document.where(inner)}: {'.'.join(map(str, inner))}: {header.backend} cannot "
                f"have {knob} {plan[knob]!r}",
                valid=valid,
                remedy="correct it, or remove the entry and tune its shape again",
            )
        within.add(plan)


def _refuse_repeated(document: Document, entries: Sequence[Entry]) -> None:
    if len({entry.shape for entry in entries}) == len(entries):
        return
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        if entry.shape in seen:
            where = document.where(("entries", index))
            raise InputError(f"{where}: shape {entry.shape} has two entries", remedy="remove one")
        seen.add(entry.shape)


def check_mergeable(path: Path, old: Header, new: Header) -> None:
    """Refuse to mix entries that are true for different things.

    Raises:
        InputError: names the first field that differs, and both values.
    """
    difference = old.first_difference(new)
    if difference is not None:
        name, was, now = difference
        told = f"is for {name} {one_line(was)}, this run is for {one_line(now)}"
        if name in (new.software_digests or {}):
            told = f"was measured with another {name} than this run would be"
        raise InputError(
            f"table {path} {told}",
            remedy="choose another folder with --out, or --replace to begin a new table",
        )
