"""From the samples of a confirmation to a verdict: standings, ties, and the publish gate."""

__all__ = [
    "CLEAR_LOSS",
    "MIN_ROUNDS",
    "NARROW",
    "SLOWEST_CASE",
    "Contest",
    "Standing",
    "Verdict",
    "is_far_from_loss",
    "slows",
]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.table import Speedup
from mla_tune.tuning.process_spread import MEASURED_SPREAD, over_processes
from mla_tune.tuning.speedups import (
    TIE_BAND,
    case_log_ratios,
    is_too_wide,
    log_ratios,
    p_value,
    speedup_of,
    ties_with,
)

EARLY_P_VALUE = 1e-4
"""For stopping a confirmation before its budget: looking again and again at 95 % would publish
noise in the end, so an early verdict has to be this clear by a signed-rank test."""

NARROW = 0.005
"""Half width of an interval below which more samples would not change what is done."""

MIN_ROUNDS = 16
"""Rounds below which nothing is published: the interval of a few rounds on a busy machine looks
like any other (four rounds gave 4.36, from 1.26 to 85.94)."""

SLOWEST_CASE = 0.99
"""The least speed-up of any KV length in screening, where all of some samples are below it."""


FAR_FROM_LOSS = 1.05
"""A guard whose interval is above it is not measured on. Processes differ by 0.6 % (rms)."""


def is_far_from_loss(case: Speedup) -> bool:
    """Whether nothing that is still to be measured would show a case to be slower."""
    return case.low > FAR_FROM_LOSS


LEAST_MEDIAN = 0.985
"""The least median of a case over processes. Three of them leave a case that is no slower above it
in 999 of 1,000 even where a plan has a bias of 0.45 % in each."""

CLEAR_LOSS = 0.97
"""The same of one process: below it another process would hardly differ."""


def slows(case: Speedup, num_cases: int, least_median: float = LEAST_MEDIAN) -> bool:
    """Whether a KV length is slower than with the default, beyond noise.

    With ten cases that are no slower, the 95 % interval of one of them is below 1 in every seventh
    entry. So the interval is widened to the level at which all of an entry's hold together
    (Bonferroni; since one rejection is enough, Holm's procedure would say the same).

    Args:
        case: with its 95 % interval over processes.
        num_cases: that the entry has.
        least_median: a median below it is slower, however wide the interval.
    """
    if case.median < least_median:
        return True
    widening = stats.norm.ppf(1 - 0.025 / num_cases) / stats.norm.ppf(1 - 0.025)
    return bool((case.high / case.median) ** widening * case.median < 1.0)


def is_kept(speedup: Speedup, min_speedup: float) -> bool:
    """Whether a plan that is published stays so, by its interval over processes.

    What is at the gate is on either side of it from one night to the next, by noise. So a plan
    comes in where its whole interval is above the gate, and goes where the whole of it is below,
    or where it is no longer proven to be faster than the default.
    """
    return speedup.high >= min_speedup and speedup.low > 1.0


@dataclass(frozen=True)
class Standing:
    """One finalist after a number of interleaved rounds beside the default."""

    plan: Plan
    speedup: Speedup
    cases: tuple[Speedup, ...]
    clearly_faster: bool
    clearly_not: bool

    @property
    def slows_a_case(self) -> bool:
        """Whether some KV length is so much slower that another process would hardly differ."""
        count = len(self.cases)
        return count > 1 and any(
            slows(over_processes([case], MEASURED_SPREAD), count, CLEAR_LOSS) for case in self.cases
        )

    @property
    def is_too_wide(self) -> bool:
        """Whether the samples of some KV length, or of all together, are too noisy to tell."""
        return any(map(is_too_wide, (self.speedup, *self.cases)))

    @property
    def is_narrow(self) -> bool:
        """Whether the speed-up is known well enough for the tie set to mean something."""
        return self.speedup.half_width <= 2 * NARROW * self.speedup.median

    @property
    def is_settled(self) -> bool:
        """Whether more rounds would not change what is done about this plan."""
        if self.clearly_not or self.speedup.half_width <= NARROW:
            return True
        return self.clearly_faster and not self.is_too_wide


@dataclass(frozen=True)
class Verdict:
    """The plan that won and what it could not be told from.

    Attributes:
        plan: empty where it is the default.
        ties: plans that could not be told from it.
        unproven: the plan that looked best, where the samples were too few or too noisy to tell.
        doubt: why they were. Not empty: a run with more time, or on a quieter machine, may find
            otherwise.
    """

    plan: Plan
    ties: tuple[Plan, ...]
    unproven: Plan | None = None
    doubt: str = ""


@dataclass(frozen=True)
class Contest:
    """Finalists and the default, timed side by side.

    Attributes:
        default: the default plan.
        samples: interleaved rounds of the default and of every finalist, equally many but for those
            that have left the race (`mla_tune.tuning.still_open`). A guard may be in the first
            rounds alone.
        shares: the cases' shares of traffic.
        min_speedup: the publish gate: the median must be above it here, and the lower end of the
            interval over processes in the end.
        favourite: last night's plan, preferred among ties.
        published: what the table publishes now, proven for the same software: it stays until it is
            clearly below the gate (`is_kept`), so here it need only be faster than the default.
    """

    default: Plan
    samples: Mapping[Plan, Samples]
    shares: tuple[float, ...]
    min_speedup: float
    favourite: Plan | None = None
    published: Plan | None = None

    @cached_property
    def standings(self) -> tuple[Standing, ...]:
        """Every finalist but the default, fastest first."""
        finalists = [self._standing(plan) for plan in self.samples if plan != self.default]
        return tuple(sorted(finalists, key=lambda standing: -standing.speedup.median))

    def _standing(self, plan: Plan) -> Standing:
        default, candidate = self.samples[self.default], self.samples[plan]
        ratios = log_ratios(default, candidate, self.shares)
        speedup = speedup_of(ratios)
        numbers = range(len(self.shares))
        by_case = [case_log_ratios(default, candidate, number) for number in numbers]
        gate = np.log(self.min_speedup)
        return Standing(
            plan=plan,
            speedup=speedup,
            cases=tuple(map(speedup_of, by_case)) if len(by_case) > 1 else (speedup,),
            clearly_faster=p_value(ratios - gate, "greater") < EARLY_P_VALUE,
            clearly_not=p_value(ratios - gate, "less") < EARLY_P_VALUE,
        )

    @property
    def rounds(self) -> int:
        """How many there were."""
        return len(self.samples[self.default].rounds)

    @property
    def racing(self) -> tuple[Standing, ...]:
        """The finalists that have been in all rounds, fastest first."""
        return tuple(s for s in self.standings if len(self.samples[s.plan].rounds) == self.rounds)

    @property
    def slowing(self) -> frozenset[Plan]:
        """The finalists, if each of them slows some case down; else none."""
        is_each = all(standing.slows_a_case for standing in self.standings)
        return frozenset(s.plan for s in self.standings) if is_each else frozenset()

    @property
    def is_settled(self) -> bool:
        """Whether the confirmation may stop before its budget is spent.

        Every finalist has to be settled against the gate; those still near the leader must
        also be known well enough for the tie set to mean something.
        """
        if not self.standings:
            return True
        if self.rounds < MIN_ROUNDS:
            return False
        leader = self.racing[0].speedup
        return all(
            standing.is_settled and (standing.is_narrow or not ties_with(standing.speedup, leader))
            for standing in self.racing
        )

    def verdict(self) -> Verdict:
        """Choose among the leader and what cannot be told from it.

        A plan is chosen by the median of its speed-up: whether it is published, other processes
        say (`mla_tune.tuning.confirmed`), whose spread is mostly wider than the interval here.

        Among ties last night's plan stands, then the default, then the one that comes first by
        the knobs' `Knob.tie_rank`, as with the fewest splits: which of them was ahead tonight is
        noise.
        """
        able = [standing for standing in self.standings if not standing.slows_a_case]
        if self.standings and self.rounds < MIN_ROUNDS:
            doubt = f"{self.rounds} rounds are too few, {MIN_ROUNDS} the least"
            return self._undecided(able or self.standings, doubt)
        clear = [standing for standing in able if not standing.is_too_wide]
        leader = self._leader(clear)
        if leader is None:
            wide = [s for s in able if s.is_too_wide and s.speedup.high > self.min_speedup]
            if wide:
                return self._undecided(wide, "the samples are too noisy to tell")
            near = tuple(s.plan for s in able if s.speedup.high * (1 + TIE_BAND) >= 1.0)
            return Verdict(UNTUNED, near)
        tied = [standing for standing in able if ties_with(standing.speedup, leader.speedup)]
        preferable = [s for s in tied if s in clear and self._may_stand_in(s)]
        chosen = min(preferable or [leader], key=self._preference).plan
        return Verdict(chosen, tuple(s.plan for s in tied if s.plan != chosen))

    def _leader(self, clear: Sequence[Standing]) -> Standing | None:
        """The fastest, if it passes the gate; else what is published, if that stays."""
        ahead = [s for s in clear if s is clear[0] or s.plan == self.published]
        return next(filter(self._passes, ahead), None)

    def _passes(self, standing: Standing) -> bool:
        gate = 1.0 if standing.plan == self.published else self.min_speedup
        return standing.speedup.median > gate

    def _may_stand_in(self, standing: Standing) -> bool:
        """Whether a tie may be preferred to the leader: it must be above the gate as surely.

        With five plans that gain nothing, the median of one is often above it by a process's bias.
        """
        if standing.plan == self.published:
            return self._passes(standing)
        return standing.speedup.low > self.min_speedup

    def _undecided(self, doubted: Sequence[Standing], doubt: str) -> Verdict:
        """Keep the default, and name the best of ``doubted`` where it looks like a gain."""
        best = doubted[0]
        seen = f"{best.plan} was {best.speedup} as fast as the default: {doubt}"
        is_gain = best.speedup.median > self.min_speedup and not best.slows_a_case
        return Verdict(UNTUNED, (), unproven=best.plan if is_gain else None, doubt=seen)

    def _preference(self, standing: Standing) -> tuple[bool, tuple[int | str, ...]]:
        return standing.plan != self.favourite, standing.plan.tie_key
