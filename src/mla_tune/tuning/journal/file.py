"""The file under a study: one run's at a time, appended line by line, mended when it is damaged."""

__all__ = ["JournalFile"]

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.files.atomic_write import fresh_beside
from mla_tune.files.own_file import kept_beside, open_own, write_whole
from mla_tune.tuning.journal.lines import Numbering, Reading, Record, line_of
from mla_tune.tuning.journal.replay import replayed, storage_over


class JournalFile(BaseJournalBackend):
    """A journal as Optuna's `JournalStorage` reads and appends it.

    Unlike Optuna's own it is read once, since no other run may write to it meanwhile, and a line
    that cannot be read costs that line: the damaged file is kept beside, what can be read goes on.

    Attributes:
        storage: Optuna's, with all records replayed.
        notices: what was found damaged, and where the damaged file is kept.

    Raises:
        InputError: another run holds it, or it is no regular file.
        EnvironmentFailure: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.notices: tuple[str, ...] = ()
        with _failures_named(path), contextlib.ExitStack() as stack:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path)
            stack.callback(os.close, self._lock)
            self._handle = open_own(path, os.O_RDWR | os.O_APPEND)
            stack.callback(lambda: os.close(self._handle))
            self.path = path.resolve()  # a link of the user's own stays one
            self._read()
            stack.pop_all()

    def _read(self) -> None:
        content = _content(self._handle)
        reading, self.storage = replayed(content, self._replay)
        if reading.is_torn:
            os.ftruncate(self._handle, content[:-1].rfind(b"\n") + 1)
            os.fsync(self._handle)
        elif reading.damaged:
            self._set_aside(reading)
        elif content and not content.endswith(b"\n"):
            write_whole(self._handle, b"\n")

    def _replay(self, records: list[Record]) -> JournalStorage:
        self._records, self._numbering = records, Numbering.after(records)
        return storage_over(self)

    def _set_aside(self, reading: Reading) -> None:
        """Keep the damaged file under another name, and write what could be read of it."""
        handle, scratch = fresh_beside(self.path)
        try:
            numbering = Numbering()
            for record in reading.records:
                write_whole(handle, line_of(record, numbering))
                numbering.count(record)
            os.fchmod(handle, os.fstat(self._handle).st_mode & 0o777)
            os.fsync(handle)
            os.close(handle)
            aside = kept_beside(self.path)
            scratch.replace(self.path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        os.close(self._handle)
        self._handle = open_own(self.path, os.O_RDWR | os.O_APPEND)
        listed = ", ".join(map(str, reading.damaged[:8])) + (", …" if reading.damaged[8:] else "")
        self.notices = (
            f"study {self.path}: line {listed} cannot be used; the rest goes on, and the "
            f"damaged file is kept as {aside.name}",
        )

    def read_logs(self, log_number_from: int) -> Sequence[Record]:
        """As `BaseJournalBackend.read_logs`."""
        return self._records[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """As `BaseJournalBackend.append_logs`; the records are on disk when this returns."""
        with _failures_named(self.path):
            for log in logs:
                line = line_of(log, self._numbering)
                write_whole(self._handle, line)
                record = json.loads(line)
                self._records.append(record)
                self._numbering.count(record)
            os.fsync(self._handle)

    def close(self) -> None:
        """Let other runs have the file."""
        for handle in (self._handle, self._lock):
            with contextlib.suppress(OSError):
                os.close(handle)
        self._handle = self._lock = -1


def _locked(path: Path) -> int:
    """Hold the lock of ``path`` until the descriptor returned is closed, or the process ends."""
    handle = open_own(path.with_name(f"{path.name}.in-use"), os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            f"study {path} is in use by another run",
            remedy="wait for it, or give this run another --study-dir",
        ) from None
    except BaseException:
        os.close(handle)
        raise
    return handle


def _content(handle: int) -> bytes:
    with open(handle, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()


@contextlib.contextmanager
def _failures_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentFailure(
            f"study {path} cannot be written: {error.strerror or error}",
            remedy="make room, or choose another --study-dir; finished trials are kept, run the "
            "same command again",
        ) from None
