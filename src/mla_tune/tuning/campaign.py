"""A whole run: every table job on the bench, whatever becomes of single workloads."""

__all__ = ["Campaign"]

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mla_tune.errors import InputError
from mla_tune.measuring.bench import Bench
from mla_tune.tuning.existing_table import previous_entries
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.quarantine import Quarantine
from mla_tune.tuning.reporters import Reporter
from mla_tune.tuning.result import TuneResult
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.table_run import TableRun, ward_of
from mla_tune.tuning.table_start import opened_journal, usable_jobs
from mla_tune.tuning.tally import Tally
from mla_tune.tuning.tuner import Tuner


@dataclass
class Campaign:
    """Works through table jobs on one bench.

    On several devices that is the work of a `mla_tune.tuning.pool.pool.Pool`.

    Args:
        bench: what measures.
        study_dir: folder of journals and quarantine.
        settings: how much to measure.
        reporter: who is told how it goes.
        replace: put a table aside that cannot be read or is for something else, and begin another.
        again: measure anew what an earlier run has decided.
        clock: seconds in which the run ran, for the length of a confirmation.
        card: as of `Tuner`.
    """

    bench: Bench
    study_dir: Path
    settings: Settings
    reporter: Reporter
    replace: bool = False
    clock: Callable[[], float] = time.monotonic
    card: str | None = None
    again: bool = False
    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        self.tally = Tally(self.reporter)

    def run(self, jobs: Sequence[TableJob]) -> TuneResult:
        """Tune everything, writing entries to their tables as they are decided.

        Each is in the study at once, and in its table when writing that is due (`Publication`), at
        the latest when the table is done or the run is interrupted. What cannot be tuned is in the
        result; the rest goes on.

        Raises:
            InputError: a file of the study folder that cannot be used, or not one table that can.
            EnvironmentFailure: the machine, the disk or the device failed.
        """
        self.reporter.begun(jobs)
        return self.tuned(jobs)

    def tuned(self, jobs: Sequence[TableJob]) -> TuneResult:
        """As `run`, where the reporter has been told of ``jobs``."""
        quarantine = Quarantine(self.study_dir / "quarantine.yaml", self.reporter.skipped)
        for job in usable_jobs(jobs, self.tally, replace=self.replace):
            self._run_job(job, quarantine)
        return self.tally.result()

    def _run_job(self, job: TableJob, quarantine: Quarantine) -> None:
        """Tune one table; whatever is wrong with its files costs this one only."""
        try:
            previous = previous_entries(job, self.reporter.skipped, replace=self.replace)
            environment = self.bench.environment
            journal = opened_journal(
                self.study_dir, job, environment, self.reporter.skipped, again=self.again
            )
        except InputError as error:
            self.tally.given_up(job, job.workloads, error)
            return
        ward = ward_of(job, self.bench.environment)
        tuner = Tuner(
            *(self.bench, journal, quarantine, ward),
            *(self.settings, self.reporter, self.clock, self.card),
        )
        TableRun(job, tuner, previous, self.reporter, self.tally).run()
