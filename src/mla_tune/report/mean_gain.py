"""What a table wins in the mean."""

__all__ = ["mean_gain"]

import math
from collections.abc import Sequence

from mla_tune.table import Entry, Speedup


def mean_gain(entries: Sequence[Entry]) -> Speedup | None:
    """Geometric mean of the gains and its interval, with errors of entries taken for independent.

    None where no default could be measured.
    """
    compared = [entry for entry in entries if entry.default_us is not None]
    if not compared:
        return None
    gains = [entry.speedup for entry in compared if entry.plan and entry.speedup]
    usable = [gain for gain in gains if gain.low > 0]
    mean = sum(math.log(gain.median) for gain in usable) / len(compared)
    halves = (math.log(gain.high / gain.low) / 2 for gain in usable)
    off = math.hypot(*halves) / len(compared)
    return Speedup(median=math.exp(mean), low=math.exp(mean - off), high=math.exp(mean + off))
