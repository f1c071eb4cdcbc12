"""A whole run: every table job on the bench, whatever becomes of single workloads."""

__all__ = ["Campaign"]

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mla_tune.errors import InputError
from mla_tune.measuring.bench import Bench
from mla_tune.tuning.existing_table import check_table, previous_entries
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.quarantine import Quarantine
from mla_tune.tuning.reporters import Reporter
from mla_tune.tuning.result import TuneResult
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.study import Journal, Subject
from mla_tune.tuning.table_run import TableRun, ward_of
from mla_tune.tuning.tally import Tally
from mla_tune.tuning.tuner import Tuner


@dataclass
class Campaign:
    """Works through table jobs on one bench.

    A job holds no state of another, so an executor for several devices would hand them out to
    several benches here.

    Args:
        bench: what measures.
        study_dir: folder of journals and quarantine.
        settings: how much to measure.
        reporter: who is told how it goes.
        replace: put a table aside that cannot be read or is for something else, and begin another.
        clock: seconds in which the run ran, for the length of a confirmation.
    """

    bench: Bench
    study_dir: Path
    settings: Settings
    reporter: Reporter
    replace: bool = False
    clock: Callable[[], float] = time.monotonic
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
        quarantine = Quarantine(self.study_dir / "quarantine.yaml", self.reporter.skipped)
        self.reporter.begun(jobs)
        for job in self._with_usable_tables(jobs):
            self._run_job(job, quarantine)
        return self.tally.result()

    def _with_usable_tables(self, jobs: Sequence[TableJob]) -> list[TableJob]:
        """Say which tables cannot be added to before anything is measured; the others go on."""
        if self.replace:
            return list(jobs)
        problems: list[tuple[TableJob, InputError]] = []
        usable: list[TableJob] = []
        for job in jobs:
            try:
                check_table(job)
            except InputError as error:
                problems.append((job, error))
            else:
                usable.append(job)
        if problems and not usable:
            raise problems[0][1]
        for job, problem in problems:
            self.tally.given_up(job, job.workloads, problem)
        return usable

    def _run_job(self, job: TableJob, quarantine: Quarantine) -> None:
        """Tune one table; whatever is wrong with its files costs this one only."""
        try:
            previous = previous_entries(job, self.reporter.skipped, replace=self.replace)
            journal = self._journal(job)
        except InputError as error:
            self.tally.given_up(job, job.workloads, error)
            return
        ward = ward_of(job, self.bench.environment)
        tuner = Tuner(
            *(self.bench, journal, quarantine, ward), *(self.settings, self.reporter, self.clock)
        )
        TableRun(job, tuner, previous, self.reporter, self.tally).run()

    def _journal(self, job: TableJob) -> Journal:
        digest = self.bench.environment.software_digest
        path = self.study_dir / f"{job.path.stem}.{digest}.journal"
        journal = Journal(path, Subject.of(job.header, digest))
        for notice in journal.notices:
            self.reporter.skipped(notice)
        return journal
