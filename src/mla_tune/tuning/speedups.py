"""From samples to a speed-up: medians, paired ratios and their 95 % interval."""

__all__ = [
    "TIE_BAND",
    "WIDEST",
    "case_log_ratios",
    "expected_us",
    "is_too_wide",
    "log_ratios",
    "p_value",
    "speedup_of",
    "ties_with",
]

import statistics
from collections.abc import Sequence

import numpy as np
from scipy import stats

from mla_tune.measuring.stopwatch import Samples
from mla_tune.table import Speedup

CONFIDENCE = 0.95
RESAMPLES = 999

WIDEST = 1.5
"""Upper over lower end beyond which an interval says too little to publish anything on. With 2 %
noise it is 1.03 after 16 rounds, with 20 % noise 1.2 after 96."""

TIE_BAND = 0.01
"""How much closer than the winner's interval a plan may be and still tie. A median moves by up to
0.9 % from one run to the next, which no interval within a run shows; without a band two tunes
name different winners (FlashInfer #4433 needed 2 %)."""

MOST_EXACT = 50
"""Pairs up to which every sign is counted, as by scipy where no two ranks are tied."""

LogRatios = np.ndarray[tuple[int], np.dtype[np.float64]]


def expected_us(samples: Samples, shares: Sequence[float]) -> float:
    """Expected latency in microseconds: the medians of the cases, by their share of traffic."""
    served = [number for number, share in enumerate(shares) if share]
    medians = [statistics.median(samples.of_case(number)) for number in served]
    return float(np.dot([shares[number] for number in served], medians))


def log_ratios(default: Samples, plan: Samples, shares: Sequence[float]) -> LogRatios:
    """Log of the default's expected latency over the plan's, round by round.

    Of the rounds that both have, and that sampled every case with a share.
    """
    served = np.flatnonzero(shares)
    weights = np.asarray(shares)[served]
    count = min(len(default.rounds), len(plan.rounds))
    theirs, own = (
        np.asarray(samples.rounds[:count])[:, served] @ weights for samples in (default, plan)
    )
    all_ratios = np.log(theirs) - np.log(own)
    ratios: LogRatios = all_ratios[~np.isnan(all_ratios)]
    return ratios


def case_log_ratios(default: Samples, plan: Samples, number: int) -> LogRatios:
    """As `log_ratios`, of one case alone."""
    shares = np.zeros(len(plan.rounds[0]))
    shares[number] = 1.0
    return log_ratios(default, plan, shares.tolist())


def speedup_of(log_ratios: LogRatios) -> Speedup:
    """Bootstrap the median of paired log ratios (scipy, percentile method, fixed seed)."""
    middle = float(np.median(log_ratios))
    if len(log_ratios) < 2 or np.ptp(log_ratios) == 0:
        return _exponential(middle, middle, middle)
    result = stats.bootstrap(
        (log_ratios,),
        np.median,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return _exponential(middle, result.low, result.high)


def _exponential(*logs: float) -> Speedup:
    median, low, high = np.exp(logs).tolist()
    return Speedup(median=median, low=low, high=high)


def is_too_wide(speedup: Speedup) -> bool:
    """Whether the truth may be anywhere (`WIDEST`)."""
    return speedup.high > WIDEST * speedup.low


def ties_with(speedup: Speedup, winner: Speedup) -> bool:
    """Whether it cannot be told from ``winner``: they overlap, or nearly (`TIE_BAND`)."""
    return speedup.high * (1 + TIE_BAND) >= winner.low


def p_value(log_ratios: LogRatios, alternative: str) -> float:
    """Wilcoxon's signed-rank test of paired log ratios against zero, without the zeros.

    Args:
        alternative: ``greater`` or ``less``.
    """
    differences = log_ratios[log_ratios != 0]
    if len(differences) > MOST_EXACT:
        return float(stats.wilcoxon(differences, alternative=alternative).pvalue)
    return _exact_p_value(differences, alternative)


def _exact_p_value(differences: LogRatios, alternative: str) -> float:
    """The share of all 2^n signs whose sum of ranks is as far out.

    Sums are counted rank by rank (the shift algorithm, Streitberg and Röhmel 1986). scipy does the
    same for ties by calling itself once for each of up to 8192 signs, which takes 0.3 s and keeps
    the threads of the other GPUs waiting; beyond 13 pairs it is not exact for them.
    """
    # Ranks of ties are halves.
    ranks = np.rint(2 * stats.rankdata(np.abs(differences))).astype(int)
    ways = np.zeros(1 + int(ranks.sum()))
    ways[0] = 1
    for rank in ranks:
        ways[rank:] += ways[:-rank]
    of_positive = int(ranks[differences > 0].sum())
    as_far = ways[of_positive:] if alternative == "greater" else ways[: of_positive + 1]
    return float(as_far.sum() / ways.sum())
