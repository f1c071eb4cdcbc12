"""A whole run on several devices: the tables that they share, tuned side by side."""

__all__ = ["PoolCampaign"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mla_tune.environment import Environment
from mla_tune.errors import InputError
from mla_tune.tuning.existing_table import previous_entries
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.pool.in_turn import InTurn
from mla_tune.tuning.pool.member import Kind, Member
from mla_tune.tuning.pool.member_run import MemberRun
from mla_tune.tuning.pool.pool import Pool
from mla_tune.tuning.pool.queue import Claims, UnitQueue
from mla_tune.tuning.pool.shared_table import SharedTable
from mla_tune.tuning.quarantine import Quarantine
from mla_tune.tuning.reporters import Reporter
from mla_tune.tuning.result import TuneResult
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.study import Journal
from mla_tune.tuning.table_run import ward_of
from mla_tune.tuning.table_start import usable_jobs
from mla_tune.tuning.tally import Tally

OpenedJournal = Callable[[TableJob, Environment], Journal]
"""Opens the studies of a table job; see `opened_journal`."""


@dataclass
class PoolCampaign:
    """Tunes table jobs on several devices, as a `Campaign` does on one.

    Args:
        members: the devices.
        journals: opens the studies of each table.
        study_dir: folder of the quarantine.
        settings: how much to measure.
        reporter: who is told how it goes, never two calls at once.
        replace: as of `Campaign`.
        claims: which units are this run's, where other runs share its studies.
    """

    members: Sequence[Member]
    journals: OpenedJournal
    study_dir: Path
    settings: Settings
    reporter: Reporter
    replace: bool = False
    claims: Claims | None = None
    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        self.reporter = InTurn.of(self.reporter)
        self.tally = Tally(self.reporter)

    def run(self, jobs: Mapping[Kind, Sequence[TableJob]]) -> TuneResult:
        """Tune everything, each workload whole on one of the devices of its kind.

        Raises:
            InputError, EnvironmentFailure: as of `Campaign.run`.
        """
        quarantine = Quarantine(self.study_dir / "quarantine.yaml", self.reporter.skipped)
        kinds = {job.path: kind for kind, own in jobs.items() for job in own}
        every = [job for own in jobs.values() for job in own]
        self.reporter.begun(every)
        usable = usable_jobs(every, self.tally, replace=self.replace)
        shared = (self._shared(job, kinds[job.path]) for job in usable)
        tables = [table for table in shared if table is not None]
        queue = UnitQueue([unit for table in tables for unit in table.units()], self.claims)
        runs = [
            MemberRun(member, queue, quarantine, self.settings, self.reporter.on(member.name))
            for member in self.members
        ]
        pool = Pool(runs, tables, queue, self.settings, self.reporter)
        pool.run()
        return self.tally.result(every, pool.remarks)

    def _shared(self, job: TableJob, kind: Kind) -> SharedTable | None:
        """The table as the devices share it; None where its files cannot be used."""
        environment = next(m.environment for m in self.members if m.kind == kind)
        try:
            previous = previous_entries(job, self.reporter.skipped, replace=self.replace)
            journal = self.journals(job, environment)
        except InputError as error:
            self.tally.given_up(job, job.workloads, error)
            return None
        ward = ward_of(job, environment)
        return SharedTable(job, kind, journal, ward, previous, self.tally)
