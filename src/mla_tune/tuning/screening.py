"""Screening: a few samples of every plan, to drop those that are clearly behind."""

__all__ = ["SCREENING_FACTOR", "Screening", "is_hopeless", "publishable", "slows_a_case"]

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.failure import PlanFailure
from mla_tune.plan.plan import Plan
from mla_tune.tuning.decide import SLOWEST_CASE
from mla_tune.tuning.loaded import LoadedWorkload
from mla_tune.tuning.observers import Observer
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.study import Ledger, Outcome

SCREENING_FACTOR = 1.03
"""A plan whose fastest sample is beyond this factor of the incumbent is dropped. docs/search.md
shows what that saves and costs on recordings."""


@dataclass(frozen=True)
class Screening:
    """Tries the plans of one workload.

    Args:
        loaded: the workload on its bench.
        ledger: proposes plans, and keeps what became of them.
        settings: how much to measure.
        observer: who is told how it goes.
    """

    loaded: LoadedWorkload
    ledger: Ledger
    settings: Settings
    observer: Observer

    def run(self) -> None:
        """Try every plan that the ledger hands out."""
        incumbent_us = self._incumbent_us()
        for plan in self.ledger.pending():
            outcome = self._try(plan, incumbent_us)
            self.ledger.tell(outcome)
            incumbent_us = self._incumbent_us()
            self.observer.tried(self.loaded.workload, outcome, incumbent_us)

    def _incumbent_us(self) -> float | None:
        ran = publishable(self.ledger.outcomes(), self.loaded.default)
        latencies = (o.latency_us for o in ran if o.latency_us and not o.dropped)
        return min(latencies, default=None)

    def _try(self, plan: Plan, incumbent_us: float | None) -> Outcome:
        loaded, settings = self.loaded, self.settings
        reason = loaded.quarantined(plan)
        if reason is not None:
            return Outcome(plan, None, f"quarantined: {reason}")
        try:
            samples = loaded.sample(plan, settings.screening_rounds)
            if incumbent_us is None or not is_hopeless(samples, loaded.shares, incumbent_us):
                samples += loaded.sample(plan, settings.trial_rounds - settings.screening_rounds)
                latency_us = loaded.expected_us(samples)
                if incumbent_us is None or latency_us < incumbent_us:
                    # A wrong plan must not set the mark that right ones are dropped by.
                    loaded.verify(plan)
                return Outcome(plan, latency_us, rounds=samples.rounds)
        except PlanFailure as failure:
            return Outcome(plan, None, loaded.filed(plan, failure))
        return Outcome(plan, loaded.expected_us(samples), "screened out", samples.rounds)


def is_hopeless(samples: Samples, shares: Sequence[float], incumbent_us: float) -> bool:
    """Whether even the fastest sample is beyond `SCREENING_FACTOR` of the incumbent."""
    fastest = [min(case) for case in zip(*samples.rounds, strict=True)]
    return float(np.dot(shares, fastest)) > SCREENING_FACTOR * incumbent_us


def slows_a_case(samples: Samples, default: Samples) -> bool:
    """Whether for some KV length even the fastest sample is slower than the default by 1 %.

    Such a plan cannot be published (see `Standing.slows_a_case`), so it must not drive out one
    that can.
    """
    pairs = list(
        zip(zip(*samples.rounds, strict=True), zip(*default.rounds, strict=True), strict=True)
    )
    return len(pairs) > 1 and any(
        min(own) > statistics.median(base) / SLOWEST_CASE for own, base in pairs
    )


def publishable(outcomes: Sequence[Outcome], default: Plan) -> list[Outcome]:
    """Leave out what has turned out slower than the default for some KV length."""
    rounds = next((o.rounds for o in outcomes if o.plan == default), ())
    if not rounds:
        return list(outcomes)
    return [
        o for o in outcomes if not o.rounds or not slows_a_case(Samples(o.rounds), Samples(rounds))
    ]
