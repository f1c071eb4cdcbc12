"""How one entry went on one card, night by night: when its latency changed, and with what."""

__all__ = ["Change", "Trend", "trends"]

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mla_tune.nightly.reading import Reading, differences
from mla_tune.nightly.shifts import LIMIT, Shift, scatter, shifts


@dataclass(frozen=True)
class Change:
    """A change of an entry's latency beyond the scatter of the nights before.

    Attributes:
        last_before, first: the last night before it, and the first after.
        factor: the latency after over that before; above 1 is slower.
        default_factor: the same of the default; None where it was not measured on both sides.
        scatter: of the log latency, as of `Shift`.
        differences: what else was different on ``first``, such as a version.
    """

    last_before: Reading
    first: Reading
    factor: float
    default_factor: float | None
    scatter: float
    differences: tuple[str, ...]

    @property
    def is_regression(self) -> bool:
        return self.factor > 1

    @property
    def is_of_the_card(self) -> bool:
        """Whether the default changed as much: then it is not the plan that did."""
        if self.default_factor is None or self.first.plan != self.last_before.plan:
            return False
        return abs(math.log(self.factor / self.default_factor)) <= LIMIT * self.scatter


@dataclass(frozen=True)
class Trend:
    """The readings of one entry on one card, by time; at least one."""

    shape: str
    card: str
    readings: tuple[Reading, ...]

    @property
    def last(self) -> Reading:
        return self.readings[-1]

    @cached_property
    def _shifts(self) -> list[Shift]:
        readings = self.readings
        other_plans = {
            place
            for place in range(1, len(readings))
            if readings[place].plan != readings[place - 1].plan
        }
        return shifts([math.log(reading.latency_us) for reading in readings], other_plans)

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """Every change of level, by time."""
        edges = [0, *(shift.first for shift in self._shifts), len(self.readings)]
        return tuple(
            self._change(shift, edges[place], edges[place + 2])
            for place, shift in enumerate(self._shifts)
        )

    @property
    def regression(self) -> Change | None:
        """What made the entry as slow as it is now, if its last change did."""
        last = self.changes[-1] if self.changes else None
        return last if last is not None and last.is_regression else None

    @property
    def usual_us(self) -> float:
        """Median latency since the last change."""
        return float(np.median([reading.latency_us for reading in self._since_change]))

    @property
    def scatter(self) -> float:
        """Robust standard deviation of the log latency since the last change."""
        return scatter([math.log(reading.latency_us) for reading in self._since_change])

    @property
    def _since_change(self) -> tuple[Reading, ...]:
        return self.readings[self._shifts[-1].first if self._shifts else 0 :]

    def _change(self, shift: Shift, begin: int, end: int) -> Change:
        before, after = self.readings[begin : shift.first], self.readings[shift.first : end]
        return Change(
            before[-1],
            after[0],
            math.exp(shift.size),
            _default_factor(before, after),
            shift.scatter,
            tuple(differences(before[-1], after[0])),
        )


def trends(readings: Iterable[Reading]) -> list[Trend]:
    """One for each entry and card, in the order in which they were first measured."""
    found: dict[tuple[str, str], list[Reading]] = {}
    for reading in readings:
        found.setdefault((reading.shape, reading.card), []).append(reading)
    return [Trend(shape, card, tuple(each)) for (shape, card), each in found.items()]


def _default_factor(before: Sequence[Reading], after: Sequence[Reading]) -> float | None:
    sides = [
        [reading.default_us for reading in side if reading.default_us is not None]
        for side in (before, after)
    ]
    if not all(sides):
        return None
    old, new = (float(np.median(side)) for side in sides)
    return new / old
