"""From what several processes saw of a plan to one interval: how far they lie apart counts.

A process gives a plan a bias of its own, such as by where its memory lies, that no number of rounds
takes away. With n processes of spread s and own errors e, the mean of their log ratios has the
variance (s² + e²) / n. Two or three processes tell little of s by themselves, so an entry's own
scatter is shrunk towards that of its table, as in a moderated t-test (Smyth, Stat. Appl. Genet.
Mol. Biol. 3, 3, 2004).
"""

__all__ = ["MEASURED_SPREAD", "WEIGHT", "over_processes", "own_error", "spread_of"]

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from mla_tune.table import Speedup

MEASURED_SPREAD = 0.006 / math.sqrt(2)
"""The least standard deviation of a log ratio from process to process. Of 36 published medians that
were measured again on another H100, the differences were 0.6 % (rms), and each holds two
processes."""

WEIGHT = 12
"""Degrees of freedom that the table's spread counts as, beside the few of an entry's own."""

FEWEST = 5
"""Entries below which a table says nothing of its own spread."""

_NORMAL_95 = float(stats.norm.ppf(0.975))


def over_processes(looks: Sequence[Speedup], spread: float) -> Speedup:
    """The speed-up with its 95 % interval over processes.

    Args:
        looks: what each process saw, with the interval of its own rounds.
        spread: standard deviation of a log ratio between processes, see `spread_of`.
    """
    medians, own = _log_medians(looks), _own_variance(looks)
    freedom = WEIGHT + len(looks) - 1
    pooled = WEIGHT * (spread**2 + own) + (len(looks) - 1) * _scatter(medians)
    error = math.sqrt(pooled / freedom / len(looks))
    middle, half = float(np.mean(medians)), float(stats.t.ppf(0.975, freedom)) * error
    median, low, high = np.exp([middle, middle - half, middle + half]).tolist()
    return Speedup(median=median, low=low, high=high)


def spread_of(entries: Sequence[Sequence[Speedup]]) -> float:
    """Standard deviation of log ratios between processes, typical of the entries of a table.

    The median over entries, so that a few that scatter much widen their own intervals and not all;
    never less than `MEASURED_SPREAD`.

    Args:
        entries: of each entry what each process saw.
    """
    several = [looks for looks in entries if len(looks) > 1]
    if len(several) < FEWEST:
        return MEASURED_SPREAD
    variances = [
        _scatter(_log_medians(looks)) * freedom / stats.chi2.median(freedom)
        for looks in several
        for freedom in [len(looks) - 1]
    ]
    between = float(np.median(variances)) - float(np.median(list(map(_own_variance, several))))
    return math.sqrt(max(between, MEASURED_SPREAD**2))


def own_error(look: Speedup) -> float:
    """Standard error of the log ratio within one process, from the interval of its rounds."""
    return math.log(look.high / look.low) / (2 * _NORMAL_95)


def _log_medians(looks: Sequence[Speedup]) -> list[float]:
    return [math.log(look.median) for look in looks]


def _scatter(values: Sequence[float]) -> float:
    """Variance of a sample; of one value it is nothing."""
    return float(np.var(values, ddof=1)) if len(values) > 1 else 0.0


def _own_variance(looks: Sequence[Speedup]) -> float:
    """Mean square of the standard errors within each process."""
    return float(np.mean(np.square([own_error(look) for look in looks])))
