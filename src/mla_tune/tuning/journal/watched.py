"""A journal that another process may be writing: read without a lock, and never written."""

__all__ = ["WatchedJournal"]

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Never

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from mla_tune.files.regular_file import file_stamp, open_regular
from mla_tune.tuning.journal.lines import Numbering, Record, read_next
from mla_tune.tuning.journal.replay import replayed, storage_over


class WatchedJournal(BaseJournalBackend):
    """What is in a journal file as of the last `refresh`.

    A line counts once it has its end. What is damaged is left out, as a run would leave it out that
    opened the file; the file stays as it is.

    Args:
        path: of the file.

    Attributes:
        storage: Optuna's, to be read alone. Another one after the file was replaced.

    Raises:
        InputError: it cannot be read, or is no regular file.
        OSError: the same, while it is looked at.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: list[Record] = []
        self._numbering = Numbering()
        self._stamp: tuple[int, ...] | None = None
        self._read_bytes = 0
        self.storage: JournalStorage = storage_over(self)
        self.refresh()

    def refresh(self) -> None:
        """Take in what was written since; of a file that is gone, what was read of it stays.

        Raises:
            InputError, OSError: as above.
        """
        stamp = file_stamp(self.path)
        if stamp is None or stamp == self._stamp:
            return
        is_same = self._stamp is not None and stamp[0] == self._stamp[0]
        self._stamp = stamp
        if is_same and self._go_on():
            return
        content = self._whole_lines(0)
        self._read_bytes = len(content)
        _, self.storage = replayed(content, self._replay)

    def _go_on(self) -> bool:
        """Read on where the last refresh ended; whether that was possible."""
        text = self._whole_lines(self._read_bytes)
        for line in text.splitlines():
            record = read_next(line, self._numbering)
            if record is None:
                return False
            self._records.append(record)
            self._numbering.count(record)
        self._read_bytes += len(text)
        return True

    def _whole_lines(self, start: int) -> bytes:
        with open_regular(self.path, what="study") as file:
            file.seek(start)
            content = file.read()
        return content[: content.rfind(b"\n") + 1]

    def _replay(self, records: list[Record]) -> JournalStorage:
        self._records, self._numbering = records, Numbering.after(records)
        return storage_over(self)

    def read_logs(self, log_number_from: int) -> Sequence[Record]:
        """As `BaseJournalBackend.read_logs`."""
        return self._records[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> Never:
        """Refuse: it is for reading."""
        raise NotImplementedError(f"{self.path} is only read here")
