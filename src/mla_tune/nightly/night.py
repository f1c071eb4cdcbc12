"""One night on all its cards: sentinels where nothing has changed, and whole tables elsewhere."""

__all__ = ["Night"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from mla_tune.nightly.card_night import CardNight
from mla_tune.nightly.estimate import look_seconds, tune_seconds
from mla_tune.nightly.outcome import Outcome
from mla_tune.nightly.reading import now
from mla_tune.nightly.sentinels import sentinels
from mla_tune.nightly.served import Served
from mla_tune.nightly.site import Site
from mla_tune.nightly.staging import Staging
from mla_tune.nightly.table_night import LENGTH, TableNight
from mla_tune.nightly.table_queue import TableQueue
from mla_tune.nightly.target import Target
from mla_tune.tuning.pool.in_turn import InTurn
from mla_tune.tuning.pool.side_by_side import side_by_side
from mla_tune.tuning.reporters import Reporter
from mla_tune.tuning.settings import Settings


@dataclass
class Night:
    """Looks after the tables of one folder.

    A table is looked at, and tuned, whole on one card of its kind.

    Args:
        sites: the cards.
        targets: the tables.
        broken: those that cannot be looked after, and why.
        study_folder: where retunes are kept while they are under way, and the quarantine.
        settings: how much a retune measures.
        reporter: who is told how it goes.
        served: what was served how often; most served comes first.
        budget_s: seconds of all cards together, after which no other batch shape is begun; None:
            there is time for all.
        at: when the night began, which its readings say.

    Attributes:
        tables: what is due on each table, and what became of it.
    """

    sites: Sequence[Site]
    targets: Sequence[Target]
    broken: Mapping[Path, str]
    study_folder: Path
    settings: Settings
    reporter: Reporter
    served: Served
    budget_s: float | None = None
    at: datetime = field(default_factory=now)

    def __post_init__(self) -> None:
        self.tables = [TableNight(each, self._staging(each), self.at) for each in self.targets]
        self._cards: list[CardNight] = []
        self._is_stopped = False
        quiet = {table.target.path: table for table in self.tables if not table.is_due}
        chosen = sentinels([table.target for table in quiet.values()], self.at - LENGTH)
        for path, entries in chosen.items():
            quiet[path].watched = entries

    @property
    def in_order(self) -> list[TableNight]:
        """The tables as they are handed out.

        First those whose sentinels say what else is due; then what has to be tuned, the most served
        first. Of those that are alike the longest first, so that the cards end together.
        """
        return sorted(self.tables, key=self._rank)

    def estimate(self, table: TableNight) -> float:
        """About how many seconds of a card ``table`` takes, if its sentinels are as they were."""
        return tune_seconds(table.target) if table.is_due else look_seconds(len(table.left))

    def run(self) -> list[Outcome]:
        """Do all that is due within the budget; whatever is wrong with a table costs it alone.

        Raises:
            EnvironmentFailure: the disk or the host failed. As with KeyboardInterrupt, all cards
                have stopped, and what is decided is kept.
        """
        queue = TableQueue(self.tables, self._rank)
        reporter = InTurn.of(self.reporter)
        self._cards = [self._card(site, queue, reporter) for site in self.sites]
        if due := [table.target.job for table in self.in_order if table.is_due]:
            reporter.begun(due)
        try:
            side_by_side((card.site.thread, card.run) for card in self._cards)
        except BaseException:
            self._stop(queue)
            raise
        for table in queue.waiting:
            losses = (card.loss for card in self._cards if card.kind == table.target.kind)
            table.outcome.fail(f"no card is left for it: {next(filter(None, losses))}")
        if any(card.is_cut for card in self._cards):
            reporter.skipped("the budget is spent before all sentinels were looked at")
        return self.outcomes

    @property
    def outcomes(self) -> list[Outcome]:
        """What became of each table so far, also of those that cannot be looked after."""
        broken = [Outcome(path) for path in self.broken]
        for outcome in broken:
            outcome.fail(self.broken[outcome.path])
        return [*(table.outcome for table in self.tables), *broken]

    def _card(self, site: Site, queue: TableQueue, reporter: Reporter) -> CardNight:
        own = reporter if len(self.sites) == 1 else reporter.on(site.name)
        return CardNight(site, queue, self.settings, own, self.served, self._is_over)

    def _rank(self, table: TableNight) -> tuple[float, ...]:
        steps = self.served.steps(table.target.job) if table.is_due else 0
        return table.is_due, -steps, -self.estimate(table)

    def _is_over(self) -> bool:
        if self._is_stopped:
            return True
        spent_s = sum(card.seconds for card in self._cards)
        return self.budget_s is not None and spent_s >= self.budget_s

    def _stop(self, queue: TableQueue) -> None:
        """End what is being measured."""
        self._is_stopped = True
        queue.stop()
        for site in self.sites:
            site.stop()
        for site in self.sites:
            site.thread.shutdown()

    def _staging(self, target: Target) -> Staging:
        return Staging(self.study_folder, target, target.environment.software_digest)
