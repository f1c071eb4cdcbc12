"""One table job on one bench, from its journal to its table."""

__all__ = ["TableRun", "ward_of"]

from collections.abc import Sequence
from dataclasses import dataclass

from mla_tune.environment import Environment
from mla_tune.errors import MlaTuneError, UnavailableError, WorkloadFailure
from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.launch_search import launches_for
from mla_tune.tuning.nominee import Nominee
from mla_tune.tuning.other_processes import OtherProcesses
from mla_tune.tuning.publishing import Publishing
from mla_tune.tuning.quarantine import Ward
from mla_tune.tuning.reporters import Reporter
from mla_tune.tuning.result import Cost
from mla_tune.tuning.streak import Streak
from mla_tune.tuning.table_model import table_model
from mla_tune.tuning.tally import Tally
from mla_tune.tuning.tuner import Tuner


@dataclass
class TableRun:
    """Tunes the workloads of one table, one after another.

    Args:
        job: what to tune.
        tuner: decides a workload.
        previous: the entries of the table that is there, by shape.
        reporter: who is told how it goes.
        tally: takes what becomes of each workload.
    """

    job: TableJob
    tuner: Tuner
    previous: dict[str, Entry]
    reporter: Reporter
    tally: Tally

    def __post_init__(self) -> None:
        self._publishing = Publishing(self.job, self.tally)
        self._nominees: list[Nominee] = []
        self._again: list[Workload] = []

    def run(self) -> None:
        """Tune the table; a session that cannot be built costs this table only."""
        began_s = self.tuner.clock()
        try:
            self.reporter.opening(self.job)
            self.tuner.bench.open(self.job.setup)
            self.tuner.launches = launches_for(self.job, self.tuner, self.reporter)
            self._tune_each(self.job.workloads)
            model = table_model(self.job, self.tuner)
            self._decide_each()
            self._publishing.model = model
            compiled = self.tuner.compiled
            seconds = self.tuner.clock() - began_s
            self.tally.spent(self.job, Cost(seconds, compiled.seconds, compiled.kernels))
        except (WorkloadFailure, UnavailableError) as error:
            self.tally.given_up(self.job, self.job.workloads, error)
        finally:
            self.tuner.journal.close()
            self._publishing.finish()

    def _decide_each(self) -> None:
        """Race the nominees, and tune again those whose plan was refused, until there are none."""
        while self._nominees or self._again:
            nominees, self._nominees = self._nominees, []
            again, self._again = [*self._again, *self._others().confirm(nominees)], []
            self._tune_each(again)

    def _tune_each(self, workloads: Sequence[Workload]) -> None:
        entry, streak = None, Streak()
        for index, workload in enumerate(workloads, start=1):
            self.reporter.started(self.job, workload)
            try:
                entry = self.tuner.tune(workload, self.previous.get(str(workload)), entry)
                self._found(workload, entry)
            except (WorkloadFailure, UnavailableError) as error:
                self.tally.failed(self.job, workload, error)
                left = workloads[index:]
                if streak.is_over(error) and left:
                    self._end_early(left, error)
                    return
            else:
                streak.end()

    def _end_early(self, left: Sequence[Workload], error: MlaTuneError) -> None:
        """Give up what is left of the table, all but what an earlier run has decided."""
        open_still: list[Workload] = []
        for index, workload in enumerate(left):
            try:
                entry = self.tuner.decided(workload)
                if entry is None:
                    open_still.append(workload)
                    continue
                self.reporter.started(self.job, workload)
                self._found(workload, entry)
            except (WorkloadFailure, UnavailableError):
                open_still += left[index:]
                break
        if open_still:
            self.tally.given_up(self.job, open_still, error)

    def _found(self, workload: Workload, entry: Entry) -> None:
        """Publish an entry, or keep it until other processes have seen its plan."""
        previous = self.previous.get(str(workload))
        if not entry.plan or entry is previous:
            self._decided(workload, entry)
            return
        nominee = self.tuner.nominee(workload, entry, previous)
        decided = nominee.decided
        if decided is not None:
            self._decided(workload, decided)
        elif self.tuner.settings.processes == 1:
            self._again += self._others().confirm([nominee])
        else:
            self._nominees.append(nominee)
            self.reporter.nominated(self.job, workload, entry)

    def _others(self) -> OtherProcesses:
        return OtherProcesses(self.job, self.tuner, self.reporter, self.tally, self._decided)

    def _decided(self, workload: Workload, entry: Entry) -> None:
        self.reporter.decided(self.job, workload, entry)
        self._publishing.add(entry)


def ward_of(job: TableJob, environment: Environment) -> Ward:
    """What plans of ``job`` are quarantined for."""
    header = job.header
    return Ward(
        backend=header.backend,
        device=header.device.name,
        model=header.model,
        kv_cache_dtype=header.kv_cache_dtype,
        mode=header.engine.mode,
        software=environment.software,
        software_digest=environment.software_digest,
        settings=header.own_settings,
    )
