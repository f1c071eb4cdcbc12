"""The entries of one table between being decided and being written."""

__all__ = ["Publishing"]

from mla_tune.errors import MlaTuneError
from mla_tune.table import Entry, Publication
from mla_tune.table.between import Between
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.tally import Tally


class Publishing:
    """The decided entries of one table that are still to be written to it.

    Args:
        job: whose table.
        tally: told what was written and what could not be.

    Attributes:
        model: what answers between the entries, written with the last of them; None where there
            is none.
    """

    def __init__(self, job: TableJob, tally: Tally) -> None:
        self._job = job
        self._tally = tally
        self._publication = Publication(job.path, job.header)
        self._waiting: list[Entry] = []
        self.model: Between | None = None

    def add(self, entry: Entry) -> None:
        """Write an entry, with those that wait, where that is due."""
        self._waiting.append(entry)
        if self._publication.is_due:
            self.finish()

    def finish(self) -> None:
        """Write what waits. A full disk costs no verdict, since the study has it already."""
        entries, self._waiting = self._waiting, []
        if not entries and self.model is None:
            return
        try:
            self._publication.write(entries, self.model)
        except MlaTuneError as error:
            self._tally.unpublished(self._job, entries, error)
        else:
            self._tally.written(self._job, entries)
