"""How a decision is told while a run goes on, and why it is not what looked best before."""

__all__ = ["ScreenedBest", "told_decision", "told_since"]

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mla_tune.cli.figures import told_time
from mla_tune.cli.table_view import told_plan
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.table import Entry
from mla_tune.tuning.study import Outcome

APART = 1.02
"""By less than this a latency of some samples and one of a confirmation are the same."""


def told_decision(entry: Entry) -> str:
    """The plan of an entry, its latency, and what it gains."""
    gain = f"{entry.speedup.median:.2f}×" if entry.speedup else "no comparison with"
    told = f"{told_plan(entry)}, {told_time(entry.latency_us)}"
    return f"{told}, {gain} the default's speed" if entry.plan else told


def told_since(measured: Sequence[datetime]) -> str:
    """From when to when something was measured, to the minute."""
    if not measured:
        return ""
    first, last = (f"{each:%Y-%m-%d %H:%M}" for each in (min(measured), max(measured)))
    return first if first == last else f"{first} to {last}"


@dataclass
class ScreenedBest:
    """What looked best while the plans of a batch shape were tried, by some samples of each."""

    plan: Plan = UNTUNED
    us: float | None = None

    def tried(self, outcome: Outcome, best_us: float | None) -> None:
        """As `Observer.tried`."""
        if best_us is not None and outcome.latency_us == best_us:
            self.plan, self.us = outcome.plan, best_us

    def difference(self, entry: Entry) -> str:
        """Why ``entry`` says another plan or figure, in a word; empty where it says the same."""
        if self.us is None:
            return ""
        published = entry.plan or entry.unproven or entry.default_plan
        if self.plan in (published, UNTUNED):
            factor = max(self.us, entry.latency_us) / min(self.us, entry.latency_us)
            return f" ({told_time(self.us)} when screened)" if factor > APART else ""
        return f" (best when screened: {self.plan}, {told_time(self.us)}; {self._fate(entry)})"

    def _fate(self, entry: Entry) -> str:
        if self.plan in entry.ties:
            return "tied"
        if "failed (" in entry.note and str(self.plan) in entry.note:
            return "failed later"
        return "not as fast when confirmed"
