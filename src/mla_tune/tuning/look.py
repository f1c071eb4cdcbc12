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


class Look(NamedTuple):
    """All cases together; then each case where there are several, None if it was left out."""

    together: Comparison
    cases: tuple[Comparison | None, ...] = ()


def look_at(default: Samples, plan: Samples, shares: Sequence[float]) -> Look:
    """Compare the rounds of one race.

    Args:
        default, plan: equally many rounds, side by side.
        shares: the cases' shares of traffic.
    """
    together = _comparison(default, plan, shares)
    if len(shares) == 1:
        return Look(together)
    numbers = range(len(shares))
    return Look(together, tuple(_of_case(default, plan, number) for number in numbers))


def look_in(entry: Entry) -> Look:
    """What the process saw that decided ``entry``, which has a plan that was compared."""
    assert entry.speedup is not None
    assert entry.default_us is not None
    together = Comparison(entry.latency_us, entry.default_us, entry.speedup)
    cases = (Comparison(c.latency_us, c.default_us, c.speedup) for c in entry.cases)
    return Look(together, tuple(cases))


def _comparison(default: Samples, plan: Samples, shares: Sequence[float]) -> Comparison:
    return Comparison(
        expected_us(plan, shares),
        expected_us(default, shares),
        speedup_of(log_ratios(default, plan, shares)),
    )


def _of_case(default: Samples, plan: Samples, number: int) -> Comparison | None:
    mine, theirs = (
        Samples(tuple((us,) for us in samples.of_case(number))) for samples in (plan, default)
    )
    return _comparison(theirs, mine, (1.0,)) if mine.rounds else None
