"""One night on one device: sentinels where nothing has changed, and whole tables elsewhere."""

__all__ = ["Night"]

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from mla_tune.errors import EnvironmentFailure, MlaTuneError, UnavailableError, WorkloadFailure
from mla_tune.nightly.bounded_bench import BoundedBench, NightOver
from mla_tune.nightly.history import History
from mla_tune.nightly.outcome import Outcome, Status
from mla_tune.nightly.reading import Reading, now
from mla_tune.nightly.sentinel_look import drift, look_again
from mla_tune.nightly.sentinels import sentinels
from mla_tune.nightly.served import Served
from mla_tune.nightly.site import Site
from mla_tune.nightly.staging import Staging
from mla_tune.nightly.target import Target
from mla_tune.table import Entry, TableFile
from mla_tune.tuning.campaign import Campaign
from mla_tune.tuning.reporters import Reporter
from mla_tune.tuning.settings import Settings

LENGTH = timedelta(hours=12)
"""What was looked at so recently was looked at tonight: a night that was cut short goes on."""


@dataclass
class Night:
    """Looks after the tables of one folder.

    Args:
        site: where to measure.
        targets: the tables.
        broken: those that cannot be looked after, and why.
        study_folder: where retunes are kept while they are under way, and the quarantine.
        settings: how much a retune measures.
        reporter: who is told how it goes.
        served: what was served how often; most served comes first.
        budget_s: seconds after which no other batch shape is begun; None: there is time for all.
        at: when the night began, which its readings say.
    """

    site: Site
    targets: Sequence[Target]
    broken: Mapping[Path, str]
    study_folder: Path
    settings: Settings
    reporter: Reporter
    served: Served
    budget_s: float | None = None
    at: datetime = field(default_factory=now)

    def __post_init__(self) -> None:
        self._began = self.site.seconds()
        self._bench = BoundedBench(self.site.bench, self._is_over)
        self._histories = {target.path: target.history for target in self.targets}
        self.outcomes = {
            target.path: Outcome(target.path, list(target.reasons)) for target in self.targets
        }
        for path, why in self.broken.items():
            self.outcomes[path] = Outcome(path)
            self.outcomes[path].fail(why)
        for target in self.targets:
            if self._staging(target).has_begun and not target.reasons:
                self.outcomes[target.path].reasons.append("a night before was cut short")

    @property
    def quiet(self) -> list[Target]:
        """Where nothing has changed: sentinels say whether that is so."""
        return [target for target in self.targets if not self.outcomes[target.path].reasons]

    @property
    def due(self) -> list[Target]:
        """What has to be tuned, the most served first."""
        found = [target for target in self.targets if self.outcomes[target.path].reasons]
        return sorted(found, key=lambda target: -self.served.steps(target.job))

    def run(self) -> list[Outcome]:
        """Do all that is due within the budget; whatever is wrong with a table costs it alone.

        Raises:
            EnvironmentFailure: the machine, the disk or the device failed.
        """
        try:
            self._look(self.watch())
        except NightOver:
            self.reporter.skipped("the budget is spent before all sentinels were looked at")
        for target in self.due:
            self._tune(target)
        return list(self.outcomes.values())

    def watch(self) -> dict[Path, list[Entry]]:
        """The sentinels that are still to be looked at tonight, by table."""
        return sentinels(self.quiet, self.at - LENGTH)

    def _look(self, chosen: dict[Path, list[Entry]]) -> None:
        """Look at sentinels, and in another process again at those that are not as they were."""
        suspects = {target.path: self._suspects_of_tonight(target) for target in self.quiet}
        for target in self.quiet:
            found = self._drifted(target, chosen.get(target.path, ()))
            suspects[target.path] += [entry for entry, _ in found]
        if any(suspects.values()):
            self._bench.renew()
        for target in self.quiet:
            for entry, how in self._drifted(target, suspects[target.path]):
                self.outcomes[target.path].reasons.append(f"{entry.shape}: {how}")

    def _suspects_of_tonight(self, target: Target) -> list[Entry]:
        """Sentinels that a night that was cut short has seen drift, and not looked at again."""
        kept, on_gpu = self._histories[target.path].by_shape, self._bench.environment.is_cuda
        found = []
        for entry in target.entries:
            tonight = [each for each in kept.get(entry.shape, ()) if each.at >= self.at - LENGTH]
            if not tonight or tonight[-1].kind == "full" or tonight[-1].plan != entry.plan:
                continue
            if drift(entry, tonight[-1], self._before_tonight(target, entry), on_gpu=on_gpu):
                found.append(entry)
        return found

    def _before_tonight(self, target: Target, entry: Entry) -> list[Reading]:
        readings = self._histories[target.path].by_shape.get(entry.shape, ())
        return [each for each in readings if each.at < self.at - LENGTH or each.kind == "full"]

    def _drifted(self, target: Target, entries: Iterable[Entry]) -> list[tuple[Entry, str]]:
        """Look at ``entries`` and keep what was seen; returns those that drifted, and how."""
        chosen, outcome, began = list(entries), self.outcomes[target.path], self.site.seconds()
        found: list[tuple[Entry, str]] = []
        if not chosen:
            return found
        try:
            self._bench.open(target.job.setup)
            for entry in chosen:
                workload = target.workloads[entry.shape]
                earlier = self._before_tonight(target, entry)
                seen = look_again(self._bench, workload, entry, earlier, self.site.card, self.at)
                outcome.num_looked += 1
                if seen.reading is not None:
                    decisive = {"kernels": target.digests}
                    self._keep(target, [seen.reading.model_copy(update=decisive)])
                if seen.drift:
                    found.append((entry, seen.drift))
                    self.reporter.skipped(f"{target.path.stem}: {entry.shape}: {seen.drift}")
        except (WorkloadFailure, UnavailableError) as error:
            outcome.fail(error.what)
        finally:
            outcome.seconds += self.site.seconds() - began
        return found

    def _tune(self, target: Target) -> None:
        outcome, began = self.outcomes[target.path], self.site.seconds()
        try:
            self._tuned(target, outcome, began)
        except NightOver:
            outcome.status = Status.LEFT
        except MlaTuneError as error:
            if isinstance(error, EnvironmentFailure):
                raise
            outcome.fail(str(error))
        finally:
            outcome.seconds += self.site.seconds() - began

    def _tuned(self, target: Target, outcome: Outcome, began: float) -> None:
        staging = self._staging(target)
        # Before anything else: what is due is so another night too.
        job = staging.begun()
        if self._is_over():
            raise NightOver
        job = replace(job, workloads=self.served.first(job))
        campaign = Campaign(
            self._bench,
            staging.study_folder,
            self.settings,
            self.reporter,
            replace=True,
            clock=self.site.seconds,
        )
        result = campaign.run([job])
        for failure in result.failures:
            outcome.fail(f"{failure.what}: {failure.error}")
        if not result.tables:
            return
        was = target.path.read_text() if target.path.exists() else None
        file = staging.publish()
        outcome.num_tuned = sum(len(table.entries) for table in result.tables)
        if outcome.status is not Status.FAILED and was != file.document.text:
            outcome.status = Status.NEW if was is None else Status.CHANGED
        seconds = (self.site.seconds() - began) / len(job.workloads)
        tuned = {entry.shape for table in result.tables for entry in table.entries}
        self._keep(target, self._readings(file, tuned, seconds))

    def _readings(self, file: TableFile, shapes: set[str], seconds: float) -> list[Reading]:
        environment = self._bench.environment
        return [
            Reading(
                at=self.at,
                kind="full",
                shape=entry.shape,
                plan=entry.plan,
                latency_us=entry.latency_us,
                default_us=entry.default_us,
                speedup=entry.speedup if entry.plan else None,
                software=environment.software,
                kernels=file.header.software_digests or {},
                card=self.site.card,
                seconds=seconds,
            )
            for entry in file.entries
            if entry.shape in shapes
        ]

    def _keep(self, target: Target, readings: Sequence[Reading]) -> None:
        kept: History = self._histories[target.path]
        self._histories[target.path] = kept.append(readings)

    def _staging(self, target: Target) -> Staging:
        return Staging(self.study_folder, target, self.site.bench.environment.software_digest)

    def _is_over(self) -> bool:
        return self.budget_s is not None and self.site.seconds() - self._began >= self.budget_s
