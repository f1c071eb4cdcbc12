"""Tables on disk: read with line numbers, merged entry by entry, written whole or not at all."""

__all__ = ["TABLE", "TableFile", "check_mergeable", "merge"]

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from pydantic import ValidationError

from mla_tune.document import Document, Kind
from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.regular_file import write_atomically
from mla_tune.shapes import Workload
from mla_tune.table.layout import Layout
from mla_tune.table.schema import SCHEMA_VERSION, Entry, Header

TABLE = Kind("table")


@dataclass(frozen=True)
class TableFile:
    """A table as it stands on disk: what it says, and its text in parts.

    ``layout`` is None where the text cannot be kept when entries change.
    """

    header: Header
    entries: tuple[Entry, ...]
    layout: Layout | None

    @classmethod
    def load(cls, path: Path) -> "TableFile":
        """Read a table.

        Raises:
            InputError: missing, not a table, a newer schema version, or an entry that is wrong;
                names the line.
        """
        return cls.from_document(Document.load(path, TABLE))

    @classmethod
    def from_document(cls, document: Document) -> "TableFile":
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
        with _named(document, ()):
            header = Header.model_validate(data)
        entries = []
        for index, row in enumerate(rows):
            with _named(document, ("entries", index)):
                entries.append(Entry.model_validate(row))
        _refuse_repeated(document, entries)
        return cls(header, tuple(entries), Layout.of(document, len(entries)))


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


def _refuse_repeated(document: Document, entries: list[Entry]) -> None:
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        if entry.shape in seen:
            where = document.where(("entries", index))
            raise InputError(f"{where}: shape {entry.shape} has two entries", remedy="remove one")
        seen.add(entry.shape)


def merge(path: Path, header: Header, entries: Iterable[Entry]) -> None:
    """Put ``entries`` into the table at ``path``, beside those already there.

    Holds a lock for the time of reading and writing, so that several runs may share a table.
    Entries that do not change keep their bytes.

    Raises:
        InputError: the table there is true for something else; see `check_mergeable`.
        EnvironmentFailure: it cannot be written; the old file is untouched.
    """
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=60):
            old = TableFile.load(path) if path.exists() else None
            if old is not None:
                check_mergeable(path, old.header, header)
            write_atomically(path, _merged_text(old, header, entries))
    except Timeout:
        raise EnvironmentFailure(
            f"table {path} has been locked by another run for a minute",
            remedy=f"wait for it, or remove .{path.name}.lock beside it if no run is left",
        ) from None
    except OSError as error:
        raise EnvironmentFailure(
            f"table {path} cannot be written: {error.strerror or error}",
            remedy="make room or choose another --out; finished trials are kept, run again",
        ) from None


def check_mergeable(path: Path, old: Header, new: Header) -> None:
    """Refuse to mix entries that are true for different things.

    Raises:
        InputError: names the first field that differs, and both values.
    """
    difference = old.first_difference(new)
    if difference is not None:
        name, was, now = difference
        raise InputError(
            f"table {path} is for {name} {_flow(was)}, this run is for {_flow(now)}",
            remedy="choose another folder with --out, or --replace to start this table anew",
        )


def _merged_text(old: TableFile | None, header: Header, entries: Iterable[Entry]) -> str:
    layout = (old.layout if old is not None else None) or Layout(_header_text(header))
    blocks: dict[str, str] = {}
    comments: dict[str, str] = {}
    kept: dict[str, Entry] = {}
    if old is not None:
        texts = layout.blocks or tuple(map(_entry_text, old.entries))
        for entry, text in zip(old.entries, texts, strict=True):
            blocks[entry.shape] = layout.ended(text)
            kept[entry.shape] = entry
        shapes = [entry.shape for entry in old.entries]
        comments = dict(zip(shapes, layout.comments, strict=False))
    for entry in entries:
        # Compared as written: what a file holds is rounded, what was measured is not.
        if entry.shape not in kept or _entry_text(kept[entry.shape]) != _entry_text(entry):
            placed = layout.placed(_entry_text(entry))
            blocks[entry.shape] = comments.get(entry.shape, "") + placed
    ordered = [blocks[shape] for shape in sorted(blocks, key=_reading_order)]
    return "".join([layout.head, *ordered, layout.tail])


def _reading_order(shape: str) -> tuple[Any, ...]:
    """Decode before extend before prefill, small batches before large ones."""
    cases = Workload.parse(shape).cases
    first = cases[0].shape
    return first.query_lens, first.num_requests, first.max_kv_len, len(cases), shape


def _header_text(header: Header) -> str:
    fields = header.model_dump(exclude_none=True)
    lines = [f"{name}: {_flow(value)}" for name, value in fields.items()]
    return "\n".join([*lines, "entries:", ""])


def _entry_text(entry: Entry) -> str:
    fields = entry.model_dump(exclude_defaults=True)
    lines = [
        f"{name}: {_flow(value)}"
        for name, value in fields.items()
        if name != "cases" and value not in ((), None)
    ]
    for index, case in enumerate(fields.get("cases", ())):
        lines += ["cases:"] if index == 0 else []
        lines.append(f"  - {_flow(case)}")
    return "  - " + "\n    ".join(lines) + "\n"


class _OneLine(yaml.SafeDumper):
    """Writes even a text of several lines on one, escaped."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = '"' if len(text.splitlines()) > 1 or text.endswith(LINE_ENDS) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


LINE_ENDS = ("\n", "\r", "\x85", "\u2028", "\u2029")
_OneLine.add_representer(str, _OneLine.represent_text)


def _flow(value: Any) -> str:
    """One line of YAML, with figures rounded to what a measurement can carry."""
    text = yaml.dump(
        _rounded(value),
        Dumper=_OneLine,
        default_flow_style=True,
        sort_keys=False,
        width=2**31,
        allow_unicode=True,
    )
    return str(text).removesuffix("...\n").strip("\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}") if abs(value) < 1000 else round(value, 1)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
