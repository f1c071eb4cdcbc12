"""What has become of the table jobs of a run so far."""

__all__ = ["Tally"]

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mla_tune.errors import MlaTuneError
from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.reporters import Reporter
from mla_tune.tuning.result import Cost, Failure, TunedTable, TuneResult


@dataclass
class Tally:
    """Counts up entries that are in their tables, and failures, which it also reports.

    Args:
        reporter: who is told of failures.

    Attributes:
        published: the entries that are in a table, by its path.
        failures: what could not be tuned or written.
        costs: of tables, by path.
    """

    reporter: Reporter
    published: dict[Path, list[Entry]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    costs: dict[Path, Cost] = field(default_factory=dict)

    def written(self, job: TableJob, entries: Sequence[Entry]) -> None:
        """Note entries that are in their table."""
        self.published.setdefault(job.path, []).extend(entries)

    def unpublished(self, job: TableJob, entries: Sequence[Entry], error: MlaTuneError) -> None:
        """Note decided entries that could not be written to their table."""
        self.failures += [Failure(job.path, (entry.shape,), error) for entry in entries]
        self.reporter.unpublished(job, entries, error)

    def failed(self, job: TableJob, workload: Workload, error: MlaTuneError) -> None:
        """Note a workload that could not be tuned."""
        self.failures.append(Failure(job.path, (str(workload),), error))
        self.reporter.failed(job, workload, error)

    def given_up(self, job: TableJob, workloads: Sequence[Workload], error: MlaTuneError) -> None:
        """Note once that ``workloads`` are not tuned, all for one cause."""
        self.failures.append(Failure(job.path, tuple(map(str, workloads)), error))
        self.reporter.given_up(job, workloads, error)

    def spent(self, job: TableJob, cost: Cost) -> None:
        """Note what a table cost that the run is done with."""
        self.costs[job.path] = cost
        self.reporter.spent(job, cost)

    def result(self, jobs: Sequence[TableJob] = (), remarks: Sequence[str] = ()) -> TuneResult:
        """All of it.

        Args:
            jobs: in whose order it is, where several devices decided it in another.
            remarks: as of `TuneResult`.
        """
        paths = [job.path for job in jobs] or list(self.published)
        shapes = [str(workload) for job in jobs for workload in job.workloads]
        place = {shape: number for number, shape in reversed([*enumerate(shapes)])}
        tables = (
            TunedTable(
                path,
                tuple(sorted(found, key=lambda e: place.get(e.shape, 0))),
                self.costs.get(path),
            )
            for path in paths
            if (found := self.published.get(path))
        )
        return TuneResult(tuple(tables), tuple(self.failures), tuple(remarks))
