"""From samples to a verdict: screening, paired confirmation, ties, and the publish gate."""

__all__ = [
    "Contest",
    "Interval",
    "Standing",
    "Verdict",
    "expected_us",
    "is_hopeless",
    "log_ratios",
    "slows_a_case",
]

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.knobs import Plan

SCREENING_FACTOR = 1.03
"""A plan whose fastest sample is beyond this factor of the incumbent is dropped (the measured
trade-off: 24 % of the samples at 0.008 % regret)."""

CONFIDENCE = 0.95
RESAMPLES = 999

EARLY_P_VALUE = 1e-4
"""For stopping a confirmation before its budget: looking again and again at 95 % would publish
noise in the end, so an early verdict has to be this clear by a signed-rank test."""

NARROW = 0.005
"""Half width of an interval below which more samples would not change what is done."""

MIN_ROUNDS = 16
"""Rounds below which nothing is published: the interval of a few rounds on a busy machine looks
like any other (four rounds gave 4.36, from 1.26 to 85.94)."""

WIDEST = 1.5
"""Upper over lower end beyond which an interval says too little to publish anything on. With 2 %
noise it is 1.03 after 16 rounds, with 20 % noise 1.2 after 96."""

SLOWEST_CASE = 0.99
"""The least speed-up of any KV length under a plan that is to be published for several."""

TIE_BAND = 0.01
"""How much closer than the winner's interval a plan may be and still tie. A median moves by up to
0.9 % from one run to the next, which no interval within a run shows; without a band two tunes
name different winners (FlashInfer #4433 needed 2 %)."""


def expected_us(samples: Samples, shares: Sequence[float]) -> float:
    """Expected latency in microseconds: the medians of the cases, by their share of traffic."""
    medians = [statistics.median(case) for case in zip(*samples.rounds, strict=True)]
    return float(np.dot(shares, medians))


def log_ratios(
    default: Samples, plan: Samples, shares: Sequence[float]
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Log of the default's expected latency over the plan's, round by round."""
    weights = np.asarray(shares)
    ratios: np.ndarray[tuple[int], np.dtype[np.float64]] = np.log(
        np.asarray(default.rounds) @ weights
    ) - np.log(np.asarray(plan.rounds) @ weights)
    return ratios


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


@dataclass(frozen=True)
class Interval:
    """A ratio of latencies, default over plan: its median and its 95 % interval."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, log_ratios: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> "Interval":
        """Bootstrap the median of paired log ratios (scipy, percentile method, fixed seed)."""
        middle = float(np.median(log_ratios))
        if len(log_ratios) < 2 or np.ptp(log_ratios) == 0:
            return cls(*np.exp([middle, middle, middle]).tolist())
        result = stats.bootstrap(
            (log_ratios,),
            np.median,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        return cls(*np.exp([middle, result.low, result.high]).tolist())

    def __str__(self) -> str:
        return f"{self.median:.2f}× ({self.low:.2f}–{self.high:.2f})"

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    @property
    def is_too_wide(self) -> bool:
        """Whether the truth may be anywhere (`WIDEST`)."""
        return self.high > WIDEST * self.low

    def ties(self, winner: "Interval") -> bool:
        """Whether this cannot be told from ``winner``: they overlap, or nearly (`TIE_BAND`)."""
        return self.high * (1 + TIE_BAND) >= winner.low


@dataclass(frozen=True)
class Standing:
    """One finalist after a number of interleaved rounds beside the default."""

    plan: Plan
    interval: Interval
    cases: tuple[Interval, ...]
    clearly_faster: bool
    clearly_not: bool

    @property
    def slows_a_case(self) -> bool:
        """Whether some KV length is slower than with the default, beyond noise."""
        return len(self.cases) > 1 and any(
            case.high < 1.0 or case.median < SLOWEST_CASE for case in self.cases
        )

    @property
    def is_too_wide(self) -> bool:
        """Whether the samples of some KV length, or of all together, are too noisy to tell."""
        return any(interval.is_too_wide for interval in (self.interval, *self.cases))

    @property
    def is_settled(self) -> bool:
        """Whether more rounds would not change what is done about this plan."""
        if self.clearly_not or self.interval.half_width <= NARROW:
            return True
        return self.clearly_faster and not self.is_too_wide


@dataclass(frozen=True)
class Verdict:
    """The plan to publish (None: the default) and what it could not be told from.

    Attributes:
        plan, ties: those.
        unproven: the plan that looked best, where the samples were too few or too noisy to tell.
        doubt: why they were. Not empty: a run with more time, or on a quieter machine, may find
            otherwise.
    """

    plan: Plan | None
    ties: tuple[Plan | None, ...]
    unproven: Plan | None = None
    doubt: str = ""


@dataclass(frozen=True)
class Contest:
    """Finalists and the default, timed side by side.

    Attributes:
        default: the default plan.
        samples: interleaved rounds of the default and of every finalist, equally many.
        shares: the cases' shares of traffic.
        min_speedup: the publish gate: the interval's lower end must be above it.
        favourite: last night's plan, preferred among ties.
    """

    default: Plan
    samples: Mapping[Plan, Samples]
    shares: tuple[float, ...]
    min_speedup: float
    favourite: Plan | None = None

    @cached_property
    def standings(self) -> tuple[Standing, ...]:
        """Every finalist but the default, fastest first."""
        finalists = [self._standing(plan) for plan in self.samples if plan != self.default]
        return tuple(sorted(finalists, key=lambda standing: -standing.interval.median))

    def _standing(self, plan: Plan) -> Standing:
        default, candidate = self._matrix(self.default), self._matrix(plan)
        ratios = log_ratios(self.samples[self.default], self.samples[plan], self.shares)
        interval = Interval.of(ratios)
        by_case = (np.log(default) - np.log(candidate)).T
        gate = np.log(self.min_speedup)
        return Standing(
            plan=plan,
            interval=interval,
            cases=tuple(map(Interval.of, by_case)) if len(by_case) > 1 else (interval,),
            clearly_faster=_p_value(ratios - gate, "greater") < EARLY_P_VALUE,
            clearly_not=_p_value(ratios - gate, "less") < EARLY_P_VALUE,
        )

    def _matrix(self, plan: Plan) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
        return np.asarray(self.samples[plan].rounds, dtype=np.float64)

    @property
    def is_settled(self) -> bool:
        """Whether the confirmation may stop before its budget is spent.

        Every finalist has to be settled against the gate; those still near the leader must
        also be known well enough for the tie set to mean something.
        """
        if not self.standings:
            return True
        if len(self._matrix(self.default)) < MIN_ROUNDS:
            return False
        leader = self.standings[0].interval
        return all(
            standing.is_settled
            and (standing.interval.half_width <= 2 * NARROW * standing.interval.median
                 or not standing.interval.ties(leader))
            for standing in self.standings
        )  # fmt: skip

    def verdict(self) -> Verdict:
        """Choose among the leader and what cannot be told from it, then ask the gate.

        Among ties last night's plan stands, then the default, then the fewest splits: which of
        them was ahead tonight is noise.
        """
        able = [standing for standing in self.standings if not standing.slows_a_case]
        rounds = len(self._matrix(self.default))
        if self.standings and rounds < MIN_ROUNDS:
            doubt = f"{rounds} rounds are too few, {MIN_ROUNDS} the least"
            return self._undecided(able or self.standings, doubt)
        clear = [standing for standing in able if not standing.is_too_wide]
        if not clear or clear[0].interval.low <= self.min_speedup:
            wide = [s for s in able if s.is_too_wide and s.interval.high > self.min_speedup]
            if wide:
                return self._undecided(wide, "the samples are too noisy to tell")
            near = tuple(s.plan for s in able if s.interval.high * (1 + TIE_BAND) >= 1.0)
            return Verdict(None, near)
        leader = clear[0]
        tied = [standing for standing in able if standing.interval.ties(leader.interval)]
        passing = [s for s in tied if s in clear and s.interval.low > self.min_speedup]
        chosen = min(passing, key=self._preference).plan
        return Verdict(chosen, tuple(s.plan for s in tied if s.plan != chosen))

    def _undecided(self, doubted: Sequence[Standing], doubt: str) -> Verdict:
        """Keep the default, and name the best of ``doubted`` where it looks like a gain."""
        best = doubted[0]
        seen = f"{best.plan} was {best.interval} as fast as the default: {doubt}"
        is_gain = best.interval.median > self.min_speedup and not best.slows_a_case
        return Verdict(None, (), unproven=best.plan if is_gain else None, doubt=seen)

    def _preference(self, standing: Standing) -> tuple[bool, int, int, str]:
        plan = standing.plan
        return (
            plan != self.favourite,
            abs(plan.num_kv_splits or 0),
            plan.reorder_batch_threshold or 0,
            plan.prefill_backend or "",
        )


def _p_value(log_ratios: "np.ndarray[tuple[int], np.dtype[np.float64]]", alternative: str) -> float:
    """Wilcoxon's signed-rank test of paired log ratios against zero."""
    if not np.any(log_ratios):
        return 1.0
    return float(stats.wilcoxon(log_ratios, alternative=alternative).pvalue)
