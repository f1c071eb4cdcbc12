"""The studies of a folder while runs may be writing them."""

__all__ = ["StudyFolder"]

import threading
from collections.abc import Sequence
from pathlib import Path

from optuna.storages import BaseStorage

from mla_tune.errors import InputError
from mla_tune.tuning.journal.watched import WatchedJournal


class StudyFolder:
    """All journals of a folder: one for each table job and state of the software.

    They are read as they are, without locks, and never written: a run does not notice.

    Args:
        path: the folder.

    Attributes:
        notices: journals that cannot be read, and why.

    Raises:
        InputError: it is no folder, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise InputError(
                f"study folder {path} is not there",
                valid="a folder that a run has written to with --study-dir",
            )
        self.path = path
        self.notices: dict[Path, str] = {}
        self._journals: dict[Path, WatchedJournal] = {}
        self._lock = threading.Lock()

    def storages(self) -> Sequence[BaseStorage]:
        """One a journal, as of now, in the order in which they were found."""
        with self._lock:
            for path in sorted(self.path.glob("*.journal")):
                try:
                    self._refresh(path)
                except (InputError, OSError) as error:
                    self.notices[path] = str(error)
            return [journal.storage for journal in self._journals.values()]

    def _refresh(self, path: Path) -> None:
        if path in self._journals:
            self._journals[path].refresh()
        else:
            self._journals[path] = WatchedJournal(path)
