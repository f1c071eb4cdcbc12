"""What one process saw of a plan beside the default: over all cases, and at each KV length."""

__all__ = ["Comparison", "Look", "look_at", "look_in"]

from collections.abc import Sequence
from typing import NamedTuple

from mla_tune.measuring.stopwatch import Samples
from mla_tune.table import Entry, Speedup
from mla_tune.tuning.speedups import expected_us, log_ratios, speedup_of


class Comparison(NamedTuple):
    """A plan beside the default, in microseconds and as a speed-up."""

    latency_us: float
    default_us: float
    speedup: Speedup


Look = tuple[Comparison, ...]
"""All cases together first; then each case, where there are several."""


def look_at(default: Samples, plan: Samples, shares: Sequence[float]) -> Look:
    """Compare the rounds of one race.

    Args:
        default, plan: equally many rounds, side by side.
        shares: the cases' shares of traffic.
    """
    together = _comparison(default, plan, shares)
    if len(shares) == 1:
        return (together,)
    each = (
        _comparison(_case(default, number), _case(plan, number), (1.0,))
        for number in range(len(shares))
    )
    return (together, *each)


def look_in(entry: Entry) -> Look:
    """What the process saw that decided ``entry``, which has a plan that was compared."""
    assert entry.speedup is not None
    assert entry.default_us is not None
    together = Comparison(entry.latency_us, entry.default_us, entry.speedup)
    return (together, *(Comparison(c.latency_us, c.default_us, c.speedup) for c in entry.cases))


def _comparison(default: Samples, plan: Samples, shares: Sequence[float]) -> Comparison:
    return Comparison(
        expected_us(plan, shares),
        expected_us(default, shares),
        speedup_of(log_ratios(default, plan, shares)),
    )


def _case(samples: Samples, number: int) -> Samples:
    return Samples(tuple((cases[number],) for cases in samples.rounds))
