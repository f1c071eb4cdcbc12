"""Screening: a few samples of every plan beside the best so far, to drop what is clearly behind.

A plan is never compared with what another one took earlier: a clock that has stepped down meanwhile
would make it look slow. It is sampled in turn with the incumbent, and its latency is its ratio to
the incumbent's, round by round, times what the incumbent's is in the study.
"""

__all__ = ["SCREENING_FACTOR", "Screening", "is_hopeless", "paired", "publishable", "slows_a_case"]

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import starmap

import numpy as np

from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.failure import PlanFailure
from mla_tune.plan.plan import Plan
from mla_tune.tuning.decide import SLOWEST_CASE
from mla_tune.tuning.loaded import LoadedWorkload
from mla_tune.tuning.observers import Observer
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.study import Ledger, Outcome
from mla_tune.tuning.study.outcome import slowest_case

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
    _fallen: set[Plan] = field(default_factory=set, init=False)

    def run(self) -> None:
        """Try every plan that the ledger hands out."""
        for plan in self.ledger.pending():
            outcome = self._try(plan)
            self.ledger.tell(outcome)
            incumbent = self._incumbent()
            incumbent_us = None if incumbent is None else incumbent.latency_us
            self.observer.tried(self.loaded.workload, outcome, incumbent_us)

    def _incumbent(self) -> Outcome | None:
        """The best so far of what ran and could be published."""
        ran = publishable(self.ledger.outcomes(), self.loaded.default)
        able = (o for o in ran if o.latency_us and not o.dropped and o.plan not in self._fallen)
        return min(able, key=lambda outcome: outcome.latency_us or 0.0, default=None)

    def _try(self, plan: Plan) -> Outcome:
        loaded = self.loaded
        reason = loaded.quarantined(plan)
        if reason is not None:
            return Outcome(plan, None, f"quarantined: {reason}")
        while True:
            incumbent = self._incumbent()
            try:
                return self._measured(plan, incumbent)
            except PlanFailure as failure:
                if incumbent is None or failure.plan != incumbent.plan:
                    return Outcome(plan, None, loaded.filed(plan, failure))
                # Its trial stands in the study; what has failed now, the confirmation finds too.
                loaded.filed(incumbent.plan, failure)
                self._fallen.add(incumbent.plan)

    def _measured(self, plan: Plan, incumbent: Outcome | None) -> Outcome:
        """Time ``plan`` until it is clearly behind, or has all its samples. Raises PlanFailure."""
        loaded, few = self.loaded, self.settings.screening_rounds
        mark_us = incumbent.latency_us if incumbent is not None else None
        samples = self._samples(plan, incumbent, few, 0)
        if mark_us is not None and is_hopeless(samples, loaded.shares, mark_us):
            return Outcome(
                plan, loaded.expected_us(samples), "screened out", samples.rounds, samples.resources
            )
        samples += self._samples(plan, incumbent, self.settings.trial_rounds - few, few)
        latency_us = loaded.expected_us(samples)
        if mark_us is None or latency_us < mark_us:
            # A wrong plan must not set the mark that right ones are dropped by.
            loaded.verify(plan)
        return Outcome(plan, latency_us, rounds=samples.rounds, resources=samples.resources)

    def _samples(
        self, plan: Plan, incumbent: Outcome | None, rounds: int, first_round: int
    ) -> Samples:
        if incumbent is None:
            return self.loaded.race([plan], rounds, first_round)[plan]
        taken = self.loaded.race([incumbent.plan, plan], rounds, first_round)
        return paired(taken[plan], taken[incumbent.plan], Samples(incumbent.rounds))


def paired(plan: Samples, beside: Samples, earlier: Samples) -> Samples:
    """What ``plan`` would have taken when the incumbent took ``earlier``.

    Args:
        plan: its samples.
        beside: the incumbent's, of the same rounds.
        earlier: the incumbent's in its own trial; their medians are what ratios are scaled by.
    """
    medians_us = [statistics.median(case) for case in zip(*earlier.rounds, strict=True)]
    rounds = tuple(
        tuple(starmap(_scaled, zip(own, others, medians_us, strict=True)))
        for own, others in zip(plan.rounds, beside.rounds, strict=True)
    )
    return replace(plan, rounds=rounds)


def _scaled(own_us: float, beside_us: float, median_us: float) -> float:
    return own_us / beside_us * median_us


def is_hopeless(samples: Samples, shares: Sequence[float], incumbent_us: float) -> bool:
    """Whether even the fastest sample is beyond `SCREENING_FACTOR` of the incumbent."""
    fastest = [min(case) for case in zip(*samples.rounds, strict=True)]
    return float(np.dot(shares, fastest)) > SCREENING_FACTOR * incumbent_us


def slows_a_case(samples: Samples, default: Samples) -> bool:
    """Whether for some KV length even the fastest sample is slower than the default by 1 %.

    Such a plan cannot be published (see `Standing.slows_a_case`), so it must not drive out one
    that can.
    """
    return len(samples.rounds[0]) > 1 and (
        slowest_case(samples.rounds, default.rounds) > 1 / SLOWEST_CASE
    )


def publishable(outcomes: Sequence[Outcome], default: Plan) -> list[Outcome]:
    """Leave out what has turned out slower than the default for some KV length."""
    rounds = next((o.rounds for o in outcomes if o.plan == default), ())
    if not rounds:
        return list(outcomes)
    return [
        o for o in outcomes if not o.rounds or not slows_a_case(Samples(o.rounds), Samples(rounds))
    ]
