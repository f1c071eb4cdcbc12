"""Entries on their way into a table that other runs and readers share."""

__all__ = ["Publication", "merge"]

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.files.atomic_write import write_atomically
from mla_tune.files.document import Document
from mla_tune.files.regular_file import file_stamp
from mla_tune.shapes import Workload
from mla_tune.table.between import Between
from mla_tune.table.entry import Entry
from mla_tune.table.header import SCHEMA_VERSION, Header
from mla_tune.table.keys import with_keys
from mla_tune.table.layout import Layout
from mla_tune.table.store import TABLE, TableFile, check_mergeable
from mla_tune.table.text import between_line, entry_text, header_text
from mla_tune.table.upgrade import upgraded

PACE = 20.0
"""A write may take one part in so many of a run. It costs in proportion to the entries in the
table, so writing at every one of them would be quadratic; the study has each verdict already."""


class Publication:
    """What one run writes into one table, beside the entries already there.

    A lock is held while the table is read and written, so that several runs may share it; it is
    read again only when somebody else has changed it. Entries that do not change keep their bytes.

    Args:
        path: the table; it need not exist.
        header: what the new entries are true for.
        clock: seconds, for the pace of writing.
    """

    def __init__(
        self, path: Path, header: Header, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self.header = header
        self._clock = clock
        self._due = clock()
        self._file: TableFile | None = None
        self._stamp: tuple[int, ...] | None = None
        self._written: str | None = None

    @property
    def is_due(self) -> bool:
        """Whether the last write is long enough ago, by how long it took."""
        return self._clock() >= self._due

    def write(self, entries: Iterable[Entry], between: Between | None = None) -> None:
        """Put ``entries`` into the table, if they are not there yet.

        With ``between``, that becomes the table's model, unless the one there is of more points:
        a run for a few shapes leaves it as it is.

        Raises:
            InputError: the table there is true for something else, see `check_mergeable`, or can
                no longer be read.
            EnvironmentFailure: it cannot be written; the old file is untouched.
        """
        began = self._clock()
        try:
            with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=60):
                self._write(list(entries), between)
        except Timeout:
            raise EnvironmentFailure(
                f"table {self.path} has been locked by another run for a minute",
                remedy=f"wait for it, or remove .{self.path.name}.lock beside it if no run is left",
            ) from None
        except OSError as error:
            raise EnvironmentFailure(
                f"table {self.path} cannot be written: {error.strerror or error}",
                remedy="make room or choose another --out; finished trials are kept, run again",
            ) from None
        finally:
            ended = self._clock()
            self._due = ended + PACE * (ended - began)

    def _write(self, entries: list[Entry], between: Between | None) -> None:
        stamp = file_stamp(self.path)
        if stamp is None:
            self._file = self._written = None
        elif stamp != self._stamp:
            file = TableFile.load(self.path)
            self._written = file.document.text
            check_mergeable(self.path, file.header, self.header)
            self._file, self._stamp = upgraded(file, self.header), stamp
        merged = _merged(self.path, self._file, self.header, entries)
        kept = self._file.between if self._file is not None else None
        merged = _with_between(merged, _better(between, kept))
        if merged.document.text != self._written:
            write_atomically(self.path, merged.document.text)
            self._stamp = file_stamp(self.path)
            self._written = merged.document.text
        self._file = merged


def merge(path: Path, header: Header, entries: Iterable[Entry]) -> None:
    """Put ``entries`` into the table at ``path`` at once. Raises as `Publication.write` does."""
    Publication(path, header).write(entries)


def _merged(path: Path, old: TableFile | None, header: Header, new: list[Entry]) -> TableFile:
    """The table with ``new`` in it, read back from its text: it says what it is meant to say."""
    if old is not None:
        header = old.header
    kept = {entry.shape: entry for entry in (old.entries if old is not None else ())}
    wanted = kept | {entry.shape: entry for entry in new if not _says(kept.get(entry.shape), entry)}
    reason = ""
    for layout in (Layout.of(old), None) if old is not None else (None,):
        text = _merged_text(layout, header, kept, wanted)
        try:
            file = TableFile.from_document(Document.parse(path, text, TABLE))
        except InputError as error:
            reason = f": {error.what}"
            # A reader's spelling that does not bear a change: all of it is spelled anew.
            continue
        found = {entry.shape: entry for entry in file.entries}
        if file.header == header and all(_says(found.get(s), e) for s, e in wanted.items()):
            return file
    raise InputError(f"table {path} cannot be spelled so that it reads back{reason}")


def _better(new: Between | None, kept: Between | None) -> Between | None:
    if new is None or (kept is not None and kept.points > new.points):
        return kept
    return new


def _with_between(file: TableFile, between: Between | None) -> TableFile:
    """The table with a model, read back from its text."""
    if between is None or (file.between and between_line(file.between) == between_line(between)):
        return file
    keys = {"schema_version": f"schema_version: {SCHEMA_VERSION}", "between": between_line(between)}
    text = with_keys(file.document, keys, before="entries")
    return TableFile.from_document(Document.parse(file.document.path, text, TABLE))


def _says(found: Entry | None, wanted: Entry) -> bool:
    # Compared as written: what a file holds is rounded, what was measured is not.
    return found is not None and (found == wanted or entry_text(found) == entry_text(wanted))


def _merged_text(
    layout: Layout | None, header: Header, kept: dict[str, Entry], wanted: dict[str, Entry]
) -> str:
    """Entries as they stand in ``layout`` where they are the same, and spelled anew elsewhere."""
    layout = layout or Layout(header_text(header))
    blocks: dict[str, str] = {}
    comments = dict(zip(kept, layout.comments, strict=False))
    old = dict(zip(kept, layout.blocks, strict=False))
    for shape, entry in wanted.items():
        if entry is kept.get(shape) and shape in old:
            blocks[shape] = layout.ended(old[shape])
        else:
            blocks[shape] = comments.get(shape, "") + layout.placed(entry_text(entry))
    ordered = [blocks[shape] for shape in sorted(blocks, key=_reading_order)]
    return "".join([layout.head, *ordered, layout.tail])


def _reading_order(shape: str) -> tuple[Any, ...]:
    """Decode before extend before prefill, small batches before large ones."""
    cases = Workload.parse(shape).cases
    first = cases[0].shape
    return first.query_lens, first.num_requests, first.max_kv_len, len(cases), shape
