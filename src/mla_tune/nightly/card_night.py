"""What one card does of a night: it looks at sentinels, and tunes the tables that are due."""

__all__ = ["CardNight"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mla_tune.errors import (
    DeviceLost,
    EnvironmentFailure,
    MlaTuneError,
    UnavailableError,
    WorkloadFailure,
)
from mla_tune.nightly.bounded_bench import BoundedBench, NightOver
from mla_tune.nightly.outcome import Status
from mla_tune.nightly.reading import Reading
from mla_tune.nightly.sentinel_look import look_again
from mla_tune.nightly.sentinels import rivals, rivals_in_turn
from mla_tune.nightly.served import Served
from mla_tune.nightly.site import Site
from mla_tune.nightly.table_night import TableNight
from mla_tune.nightly.table_queue import TableQueue
from mla_tune.plan.plan import Plan
from mla_tune.table import Entry, TableFile
from mla_tune.tuning.campaign import Campaign
from mla_tune.tuning.pool.member import Kind, kind_of
from mla_tune.tuning.reporters import Reporter
from mla_tune.tuning.settings import Settings


@dataclass(eq=False)
class CardNight:
    """Looks after one table after another, each whole, in the card's thread.

    Args:
        site: the card.
        queue: where its tables come from.
        settings: how much a retune measures.
        reporter: who is told how it goes on this card.
        served: what was served how often; most served comes first.
        is_over: whether no other batch shape is to be begun.

    Attributes:
        loss: how the card was lost, if it was.
        is_cut: whether it had no time for all sentinels.
    """

    site: Site
    queue: TableQueue
    settings: Settings
    reporter: Reporter
    served: Served
    is_over: Callable[[], bool]
    loss: DeviceLost | None = field(default=None, init=False)
    is_cut: bool = field(default=False, init=False)
    _spent_s: float = field(default=0.0, init=False)
    _began_s: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._bench = BoundedBench(self.site.bench, self.is_over)

    @property
    def kind(self) -> Kind:
        """Of the card."""
        return kind_of(self.site.bench.environment)

    @property
    def seconds(self) -> float:
        """For how long the card has been at tables; may be asked from any thread."""
        began_s, spent_s = self._began_s, self._spent_s
        return spent_s + (0.0 if began_s is None else self.site.seconds() - began_s)

    def run(self) -> None:
        """Look after tables until there are none left; a lost card leaves its own to others.

        Raises:
            EnvironmentFailure: the disk or the host failed, with which no card can go on.
        """
        while (table := self.queue.take(self.kind)) is not None:
            try:
                self._timed(table)
            except DeviceLost as loss:
                self.loss = loss
                self.queue.put_back(table)
                self.reporter.skipped(f"{self.site.name} is lost: {loss}")
                return

    def _timed(self, table: TableNight) -> None:
        self._began_s = began_s = self.site.seconds()
        try:
            self._do(table)
        finally:
            took_s, self._began_s = self.site.seconds() - began_s, None
            self._spent_s += took_s
            table.outcome.seconds += took_s

    def _do(self, table: TableNight) -> None:
        if table.is_due:
            self._tune(table)
            self.queue.done(table)
            return
        try:
            self._look(table)
        except NightOver:
            self.is_cut = True
        if table.is_due:
            self.reporter.begun([table.target.job])
            self.queue.put_back(table)
        else:
            self.queue.done(table)

    def _look(self, table: TableNight) -> None:
        """Look at sentinels, and in another process again at those that are not as they were."""
        suspects, left = table.suspects, table.left
        beside = rivals_in_turn(left, table.history)
        suspects += [entry for entry, _ in self._drifted(table, left, beside)]
        if suspects:
            self._bench.renew()
        for entry, how in self._drifted(table, suspects, rivals(suspects)):
            table.outcome.reasons.append(f"{entry.shape}: {how}")

    def _drifted(
        self, table: TableNight, entries: Sequence[Entry], beside: Mapping[str, Plan]
    ) -> list[tuple[Entry, str]]:
        """Look at ``entries`` and keep what was seen; returns those that drifted, and how."""
        target, site = table.target, self.site
        found: list[tuple[Entry, str]] = []
        if not entries:
            return found
        if self.is_over():
            raise NightOver
        try:
            self._bench.open(target.job.setup)
            for entry in entries:
                workload, earlier = target.workloads[entry.shape], table.before_tonight(entry)
                seen = look_again(
                    *(self._bench, workload, entry, earlier, site.card, table.at),
                    rival=beside.get(entry.shape),
                )
                table.outcome.num_looked += 1
                if seen.reading is not None:
                    decisive = {"kernels": target.digests}
                    table.keep([seen.reading.model_copy(update=decisive)])
                if seen.drift:
                    found.append((entry, seen.drift))
                    self.reporter.skipped(f"{target.path.stem}: {entry.shape}: {seen.drift}")
        except (WorkloadFailure, UnavailableError) as error:
            table.outcome.fail(error.what)
        return found

    def _tune(self, table: TableNight) -> None:
        try:
            self._tuned(table)
        except NightOver:
            table.outcome.status = Status.LEFT
        except MlaTuneError as error:
            if isinstance(error, EnvironmentFailure):
                raise
            table.outcome.fail(str(error))

    def _tuned(self, table: TableNight) -> None:
        target, outcome, began_s = table.target, table.outcome, self.site.seconds()
        # Before anything else: what is due is so another night too.
        job = table.staging.begun()
        if self.is_over():
            raise NightOver
        job = replace(job, workloads=self.served.first(job))
        campaign = Campaign(
            self._bench,
            table.staging.study_folder,
            self.settings,
            self.reporter,
            replace=True,
            clock=self.site.seconds,
            card=self.site.card,
        )
        try:
            result = campaign.tuned([job])
        finally:
            for entry in campaign.tally.published.get(job.path, ()):
                table.tuned_on.setdefault(entry.shape, self.site.card)
        for failure in result.failures:
            outcome.fail(f"{failure.what}: {failure.error}")
        if not result.tables:
            return
        was = target.path.read_text() if target.path.exists() else None
        file = table.staging.publish()
        outcome.num_tuned = sum(len(found.entries) for found in result.tables)
        if outcome.status is not Status.FAILED and was != file.document.text:
            outcome.status = Status.NEW if was is None else Status.CHANGED
        seconds = (self.site.seconds() - began_s) / len(job.workloads)
        table.keep(_readings(table, file, seconds))


def _readings(table: TableNight, file: TableFile, seconds: float) -> Sequence[Reading]:
    """Of each entry that was tuned tonight, so many seconds each."""
    return [
        Reading(
            at=table.at,
            kind="full",
            shape=entry.shape,
            plan=entry.plan,
            latency_us=entry.latency_us,
            default_us=entry.default_us,
            speedup=entry.speedup if entry.plan else None,
            software=table.target.environment.software,
            kernels=file.header.software_digests or {},
            card=table.tuned_on[entry.shape],
            seconds=seconds,
        )
        for entry in file.entries
        if entry.shape in table.tuned_on
    ]
