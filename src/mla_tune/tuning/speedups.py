"""From samples to a speed-up: medians, paired ratios and their 95 % interval."""

__all__ = [
    "TIE_BAND",
    "WIDEST",
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

LogRatios = np.ndarray[tuple[int], np.dtype[np.float64]]


def expected_us(samples: Samples, shares: Sequence[float]) -> float:
    """Expected latency in microseconds: the medians of the cases, by their share of traffic."""
    medians = [statistics.median(case) for case in zip(*samples.rounds, strict=True)]
    return float(np.dot(shares, medians))


def log_ratios(default: Samples, plan: Samples, shares: Sequence[float]) -> LogRatios:
    """Log of the default's expected latency over the plan's, round by round."""
    weights = np.asarray(shares)
    ratios: LogRatios = np.log(np.asarray(default.rounds) @ weights) - np.log(
        np.asarray(plan.rounds) @ weights
    )
    return ratios


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
    """Wilcoxon's signed-rank test of paired log ratios against zero."""
    if not np.any(log_ratios):
        return 1.0
    return float(stats.wilcoxon(log_ratios, alternative=alternative).pvalue)
