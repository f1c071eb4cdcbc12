"""Who is told how a whole run goes."""

__all__ = ["Reporter", "SilentReporter"]

from collections.abc import Sequence
from typing import Protocol

from mla_tune.errors import MlaTuneError
from mla_tune.plan.plan import Plan
from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.observers import Observer, SilentObserver
from mla_tune.tuning.result import Cost


class Reporter(Observer, Protocol):
    """Who is told how the whole run goes."""

    def on(self, device: str) -> "Reporter": ...
    def skipped(self, what: str) -> None: ...
    def begun(self, jobs: Sequence[TableJob]) -> None: ...
    def opening(self, job: TableJob) -> None: ...
    def searching(self, job: TableJob, workload: Workload, num_launches: int) -> None: ...
    def launches_found(self, job: TableJob, launches: Sequence[Plan]) -> None: ...
    def started(self, job: TableJob, workload: Workload) -> None: ...
    def decided(self, job: TableJob, workload: Workload, entry: Entry) -> None: ...
    def nominated(self, job: TableJob, workload: Workload, entry: Entry) -> None: ...
    def renewed(self, job: TableJob, num_nominees: int) -> None: ...
    def failed(self, job: TableJob, workload: Workload, error: MlaTuneError) -> None: ...
    def given_up(
        self, job: TableJob, workloads: Sequence[Workload], error: MlaTuneError
    ) -> None: ...
    def unpublished(self, job: TableJob, entries: Sequence[Entry], error: MlaTuneError) -> None: ...
    def spent(self, job: TableJob, cost: Cost) -> None: ...


class SilentReporter(SilentObserver):
    """A reporter that says nothing: derive from it, and override what you want to be told.

    A method that raises ends the run; whatever was measured until then is kept.
    """

    def on(self, device: str) -> Reporter:
        """Who is told what happens on ``device``, one of several; never two calls at once."""
        del device
        return self

    def skipped(self, what: str) -> None:
        """Something is left out, or should be known, in one line."""

    def begun(self, jobs: Sequence[TableJob]) -> None:
        """What there is to do: one job a table."""

    def opening(self, job: TableJob) -> None:
        """The session of a table is built; in a new process vLLM is imported first."""

    def searching(self, job: TableJob, workload: Workload, num_launches: int) -> None:
        """So many launches of the kernel are tried on a batch shape that stands for others."""

    def launches_found(self, job: TableJob, launches: Sequence[Plan]) -> None:
        """The launches that all batch shapes of a table are tuned over, beside the own one."""

    def started(self, job: TableJob, workload: Workload) -> None:
        """A batch shape is begun."""

    def decided(self, job: TableJob, workload: Workload, entry: Entry) -> None:
        """A batch shape is decided: ``entry`` is what its table says of it."""

    def nominated(self, job: TableJob, workload: Workload, entry: Entry) -> None:
        """The plan of ``entry`` won in this process; it is decided once others have raced it."""

    def renewed(self, job: TableJob, num_nominees: int) -> None:
        """Another process starts, for so many batch shapes whose plans won in the first."""

    def failed(self, job: TableJob, workload: Workload, error: MlaTuneError) -> None:
        """A batch shape could not be tuned."""

    def given_up(self, job: TableJob, workloads: Sequence[Workload], error: MlaTuneError) -> None:
        """Batch shapes are left untuned, all for one cause."""

    def unpublished(self, job: TableJob, entries: Sequence[Entry], error: MlaTuneError) -> None:
        """Decided entries could not be written to their table."""

    def spent(self, job: TableJob, cost: Cost) -> None:
        """The run is done with a table."""
