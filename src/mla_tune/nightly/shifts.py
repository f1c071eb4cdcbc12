"""When a level changed: the nights of one entry, cut where their median moves for good.

A level is a median. A night begins another level if it, and at least one of the two nights after
it, lies beyond the scatter on the same side; the last night needs none to agree, so that a change
is seen the same night. Scatter is that of a control chart of single values, the mean range from one
night to the next over 1.128 (Shewhart), without the two largest: changes of level are no scatter,
and a card that has two speeds from process to process does scatter.
"""

__all__ = ["FEWEST_BEFORE", "LIMIT", "SPREAD", "Shift", "scatter", "shifts"]

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

SPREAD = 0.006
"""Least scatter of a log latency or log ratio from one process to another: 0.6 % (rms) between
published medians and those of another process, see `mla_tune.tuning.process_spread`."""

LIMIT = 4.0
"""How many times the scatter a level has to move by: 2.4 % at least."""

FEWEST_BEFORE = 4
"""Nights that make a level."""

WITNESSES = 2
"""Nights after a first one, of which one has to agree."""

_RANGE_OF_TWO = 1.128
"""Mean range of two draws from a normal distribution, in standard deviations."""


@dataclass(frozen=True)
class Shift:
    """A level that changed.

    Attributes:
        first: index of the first night of the new level.
        size: the new level less the one before; of logarithms, so 0.1 is 10.5 % more.
        scatter: of the nights on both sides.
    """

    first: int
    size: float
    scatter: float


def scatter(values: Sequence[float]) -> float:
    """Standard deviation of nights, by time, whatever their levels; at least `SPREAD`."""
    ranges = np.sort(np.abs(np.diff(values)))[:-2]
    return max(SPREAD, float(np.mean(ranges)) / _RANGE_OF_TWO if len(ranges) else 0.0)


def shifts(values: Sequence[float], cuts: Collection[int] = ()) -> list[Shift]:
    """Where the level of ``values``, by time, changed by more than `LIMIT` times their scatter.

    At each of ``cuts`` something else is measured from there on, and one night makes a level.
    """
    spread = scatter(values)
    starts = _starts(values, cuts, LIMIT * spread)
    found: list[Shift] = []
    begin = 0
    for place, first in enumerate(starts):
        end = starts[place + 1] if place + 1 < len(starts) else len(values)
        size = float(np.median(values[first:end]) - np.median(values[begin:first]))
        if abs(size) > LIMIT * spread:
            found.append(Shift(first, size, spread))
            begin = first
    return found


def _starts(values: Sequence[float], cuts: Collection[int], most: float) -> list[int]:
    """The cuts, and where nights leave the level of those before by more than ``most``."""
    starts: list[int] = []
    begin = 0
    for place in range(1, len(values)):
        if place in cuts:
            starts.append(place)
            begin = place
        if place - begin < FEWEST_BEFORE:
            continue
        level = float(np.median(values[begin:place]))
        here, *after = (value - level for value in values[place : place + 1 + WITNESSES])
        alike = [other for other in after if abs(other) > most and (other > 0) == (here > 0)]
        if abs(here) > most and (alike or not after):
            starts.append(place)
            begin = place
    return starts
