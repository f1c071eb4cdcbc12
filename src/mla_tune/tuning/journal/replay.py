"""Replaying what a journal holds in Optuna, without what Optuna refuses."""

__all__ = ["replayed", "storage_over"]

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from mla_tune.tuning.journal.lines import Reading, Record, read_lines

MOST_REFUSED = 20
"""How many records, sound as they look, Optuna may refuse before the rest is given up."""


def replayed(
    content: bytes, replay: Callable[[list[Record]], JournalStorage]
) -> tuple[Reading, JournalStorage]:
    """What can be read of a journal's ``content``, and what ``replay`` makes of its records."""
    refused: set[int] = set()
    reading = read_lines(content)
    while True:
        try:
            return reading, replay(reading.records)
        except Exception:
            # Whatever Optuna raises: its replay takes the shape of a record for granted.
            first = _first_refused(reading.records)
            if first is None:
                raise
            if len(refused) < MOST_REFUSED:
                refused.add(reading.numbers[first])
                reading = read_lines(content, refused)
            else:
                reading = reading.cut(first)


def storage_over(backend: BaseJournalBackend) -> JournalStorage:
    """Optuna's storage, with all records of ``backend`` replayed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return JournalStorage(backend)


class _Prefix(BaseJournalBackend):
    """The first ``length`` of some records."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records
        self.length = 0

    def read_logs(self, log_number_from: int) -> Sequence[Record]:
        return self._records[log_number_from : self.length]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise NotImplementedError("nothing is appended to a prefix")


def _first_refused(records: Sequence[Record]) -> int | None:
    """The index of the first record that Optuna does not replay."""
    prefix = _Prefix(records)
    storage = storage_over(prefix)
    for index in range(len(records)):
        prefix.length = index + 1
        try:
            storage.get_all_studies()
        except Exception:
            return index
    return None
