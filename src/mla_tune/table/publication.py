"""Writing entries into a table file that other runs and readers share."""

__all__ = ["Publication", "merge"]

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from mla_tune.errors import EnvironmentFailure
from mla_tune.files.atomic_write import write_atomically
from mla_tune.files.regular_file import file_stamp
from mla_tune.table.between import Between
from mla_tune.table.entry import Entry
from mla_tune.table.header import Header
from mla_tune.table.merging import merged_table, with_between
from mla_tune.table.store import TableFile, check_mergeable
from mla_tune.table.upgrade import upgraded

PACE = 20.0
"""A write may take one part in so many of a run. A write takes time in proportion to the entries of
the table, so a write after each of them would be quadratic; the study has each verdict already."""


class Publication:
    """What one run writes into one table, beside the entries already there.

    A lock is held while the table is read and written, so that several runs may share it; it is
    read again only when somebody else has changed it. Entries that do not change keep their bytes.

    Args:
        path: the table; it need not exist.
        header: what the new entries were measured for.
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
            InputError: the table there was measured for something else, see `check_mergeable`, or
                can no longer be read.
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
        merged = merged_table(self.path, self._file, self.header, entries)
        kept = self._file.between if self._file is not None else None
        merged = with_between(merged, _better(between, kept))
        if merged.document.text != self._written:
            write_atomically(self.path, merged.document.text)
            self._stamp = file_stamp(self.path)
            self._written = merged.document.text
        self._file = merged


def merge(path: Path, header: Header, entries: Iterable[Entry]) -> None:
    """Put ``entries`` into the table at ``path`` at once. Raises as `Publication.write` does."""
    Publication(path, header).write(entries)


def _better(new: Between | None, kept: Between | None) -> Between | None:
    if new is None or (kept is not None and kept.points > new.points):
        return kept
    return new
