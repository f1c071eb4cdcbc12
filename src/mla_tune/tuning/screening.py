"""Screening: a few samples of every plan beside the best so far, to drop what is clearly behind.

A plan is never compared with what another one took earlier: a clock that has stepped down meanwhile
would make it look slow. It is sampled in turn with the incumbent, and its latency is its ratio to
the incumbent's, round by round, times what the incumbent's is in the study.
"""

__all__ = ["SCREENING_FACTOR", "Screening", "is_hopeless", "paired", "publishable", "slows_a_case"]

import math
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

FAR_BEHIND = 1.25
"""A plan is dropped after its first round if most cases, and all together, are beyond this factor
of the incumbent: one sample may be an outlier, and not most of so many."""

MANY_CASES = 3

CLEARLY_SLOWED = 1.1
"""A guard that is slower by more than this in all of a few samples is not sampled again."""


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
                beside = {loaded.default, incumbent.plan if incumbent is not None else plan}
                if failure.plan not in beside - {plan}:
                    return Outcome(plan, None, loaded.filed(plan, failure))
                # Its trial stands in the study; what has failed now, the confirmation finds too.
                loaded.filed(failure.plan, failure)
                self._fallen.add(failure.plan)

    def _measured(self, plan: Plan, incumbent: Outcome | None) -> Outcome:
        """Time ``plan`` until it is clearly behind, or has all its samples. Raises PlanFailure."""
        loaded, few = self.loaded, self.settings.screening_rounds
        mark_us = incumbent.latency_us if incumbent is not None else None
        samples = Samples(())
        for rounds in (1, few - 1) if len(loaded.served) >= MANY_CASES else (few,):
            samples += self._samples(plan, incumbent, rounds, len(samples.rounds))
            if incumbent is not None and _is_behind(samples, incumbent, loaded.shares, few):
                expected_us = loaded.expected_us(samples)
                return Outcome(plan, expected_us, "screened out", samples.rounds, samples.resources)
        samples += self._samples(plan, incumbent, self.settings.trial_rounds - few, few)
        if loaded.guards:
            samples += self._at_guards(plan)
        latency_us = loaded.expected_us(samples)
        if mark_us is None or latency_us < mark_us:
            # A wrong plan must not set the mark that right ones are dropped by.
            loaded.verify(plan)
        return Outcome(plan, latency_us, rounds=samples.rounds, resources=samples.resources)

    def _samples(
        self, plan: Plan, incumbent: Outcome | None, rounds: int, first_round: int
    ) -> Samples:
        cases = self.loaded.served if self.loaded.guards else None
        if incumbent is None:
            return self.loaded.race([plan], rounds, first_round, cases)[plan]
        taken = self.loaded.race([incumbent.plan, plan], rounds, first_round, cases)
        return paired(taken[plan], taken[incumbent.plan], Samples(incumbent.rounds))

    def _at_guards(self, plan: Plan) -> Samples:
        """Samples of the guards, beside the default, as far as they are needed.

        One sample that is no slower than the default clears a guard for good (`slows_a_case`), so
        only those without one are sampled again.
        """
        loaded, default = self.loaded, self.loaded.default
        base = next((Samples(o.rounds) for o in self.ledger.outcomes() if o.plan == default), None)
        if plan == default:
            return loaded.race([plan], self.settings.trial_rounds, 0, loaded.guards)[plan]
        if base is None or not base.rounds or default in self._fallen:
            return Samples(())  # nothing can be slower than a default that does not run
        taken, suspects = Samples(()), loaded.guards
        for number in range(self.settings.trial_rounds):
            race = loaded.race([default, plan], 1, number, suspects)
            taken += paired(race[plan], race[default], base)
            suspects = tuple(n for n in suspects if _may_be_slowed(taken, base, n, 1.0))
            is_clear = number + 1 >= self.settings.screening_rounds and any(
                _may_be_slowed(taken, base, n, CLEARLY_SLOWED) for n in suspects
            )
            if is_clear or not suspects:
                break
        return taken


def paired(plan: Samples, beside: Samples, earlier: Samples) -> Samples:
    """What ``plan`` would have taken when the incumbent took ``earlier``.

    Args:
        plan: its samples.
        beside: the incumbent's, of the same rounds.
        earlier: the incumbent's in its own trial; their medians are what ratios are scaled by.
    """
    cases = range(len(earlier.rounds[0]))
    medians_us = [_median_or_nan(earlier.of_case(number)) for number in cases]
    rounds = tuple(
        tuple(starmap(_scaled, zip(own, others, medians_us, strict=True)))
        for own, others in zip(plan.rounds, beside.rounds, strict=True)
    )
    return replace(plan, rounds=rounds)


def _median_or_nan(latencies_us: Sequence[float]) -> float:
    return statistics.median(latencies_us) if latencies_us else math.nan


def _scaled(own_us: float, beside_us: float, median_us: float) -> float:
    return own_us / beside_us * median_us


def _is_behind(samples: Samples, incumbent: Outcome, shares: Sequence[float], few: int) -> bool:
    """Whether a plan is clearly slower than the incumbent, after ``few`` rounds or fewer."""
    assert incumbent.latency_us is not None
    if len(samples.rounds) >= few:
        return is_hopeless(samples, shares, incumbent.latency_us)
    earlier = Samples(incumbent.rounds)
    ratios = [
        min(samples.of_case(number)) / statistics.median(earlier.of_case(number))
        for number, share in enumerate(shares)
        if share
    ]
    return statistics.median(ratios) > FAR_BEHIND and is_hopeless(
        samples, shares, incumbent.latency_us * FAR_BEHIND / SCREENING_FACTOR
    )


def is_hopeless(samples: Samples, shares: Sequence[float], incumbent_us: float) -> bool:
    """Whether even the fastest sample is beyond `SCREENING_FACTOR` of the incumbent."""
    served = [number for number, share in enumerate(shares) if share]
    fastest = [min(samples.of_case(number)) for number in served]
    expected_us = float(np.dot([shares[number] for number in served], fastest))
    return expected_us > SCREENING_FACTOR * incumbent_us


def slows_a_case(samples: Samples, default: Samples) -> bool:
    """Whether for some KV length even the fastest sample is slower than the default by 1 %.

    Such a plan cannot be published (see `Standing.slows_a_case`), so it must not drive out one
    that can.
    """
    return len(samples.rounds[0]) > 1 and (
        slowest_case(samples.rounds, default.rounds) > 1 / SLOWEST_CASE
    )


def _may_be_slowed(samples: Samples, default: Samples, case: int, factor: float) -> bool:
    """Whether every sample of a case is slower than the default, by 1 % and by ``factor``."""
    own, base = samples.of_case(case), default.of_case(case)
    limit = factor / SLOWEST_CASE
    return bool(own and base) and min(own) > statistics.median(base) * limit


def publishable(outcomes: Sequence[Outcome], default: Plan) -> list[Outcome]:
    """Leave out what has turned out slower than the default for some KV length."""
    rounds = next((o.rounds for o in outcomes if o.plan == default), ())
    if not rounds:
        return list(outcomes)
    return [
        o for o in outcomes if not o.rounds or not slows_a_case(Samples(o.rounds), Samples(rounds))
    ]
