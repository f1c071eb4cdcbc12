"""Fitting a model of waves to measured latencies, and proving it on points that it has not seen."""

__all__ = [
    "FEWEST_POINTS",
    "MOST_FITS",
    "MOST_POINTS",
    "LeftOut",
    "Point",
    "Proof",
    "fit",
    "nonnegative",
    "outermost",
    "prove",
    "proven",
    "rounded",
]

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import optimize

from mla_tune.plan.cut import Cutter
from mla_tune.table.waves import TERMS, Error, Length, ProvenModel, WaveModel, fastest, terms

_Place = TypeVar("_Place", bound=tuple[int, ...])

OCCUPANCIES = (1, 2, 3, 4)
"""Thread blocks a multiprocessor may run at a time; which it is, the fit finds."""

FEWEST_POINTS = 9
"""Below this a proof says nothing."""

COVERED = 0.95
"""The share of new points whose predicted gain is off by no more than a proven error."""

SHORT_US = (0.0, 30.0, 100.0, 300.0, 1000.0)
"""Latencies at which an error may be twice what it is of long batches."""

NEAR = 0.02
"""Values this near to the fastest by the model may be chosen at the next fit."""

MOST_FITS = 64
MOST_POINTS = 512
"""What a fit and its proof may take: seconds, for a table of thousands of entries too."""

DIGITS = 4
"""Significant digits of a coefficient."""


@dataclass(frozen=True)
class Point:
    """What was measured of one single-token batch.

    Attributes:
        batch: requests.
        kv_len: tokens of each.
        default: the knob's value untuned.
        latency_us: by value of the knob; the default among them.
    """

    batch: int
    kv_len: int
    default: int
    latency_us: Mapping[int, float]

    @property
    def best(self) -> int:
        """The fastest value."""
        return min(self.latency_us, key=lambda value: self.latency_us[value])


@dataclass(frozen=True)
class LeftOut:
    """What a model did with a point that was left out of its fit; 0.01 is 1 %.

    Attributes:
        error: predicted gain over the real one, less one; of the values near the one chosen, the
            largest.
        latency_us: predicted of the value chosen.
        gain: the gain that the model promises of the value it chooses.
        regret: latency of that value over the best one's, less one.
        loss: the same over the default's; below zero where it gains.
    """

    error: float
    latency_us: float
    gain: float
    regret: float
    loss: float

    @classmethod
    def of(
        cls,
        measured_us: Mapping[int, float],
        predicted_us: Mapping[int, float],
        default: int,
        *,
        value: int,
        gain: float,
    ) -> "LeftOut":
        """Of latencies by value, of which a model chooses ``value`` and promises ``gain``."""
        others = [other for other in measured_us if other != default]
        least_us = min((predicted_us[other] for other in others), default=math.inf)
        errors = [
            (predicted_us[default] / predicted_us[other])
            / (measured_us[default] / measured_us[other])
            - 1
            for other in others
            if predicted_us[other] <= least_us * (1 + NEAR)
        ]
        return cls(
            max(errors, default=0.0),
            predicted_us[value],
            gain,
            measured_us[value] / min(measured_us.values()) - 1,
            measured_us[value] / measured_us[default] - 1,
        )


@dataclass(frozen=True)
class Proof:
    """How a model does on points that it has not seen: each was left out in turn.

    Attributes:
        left_out: what a fit of the others said of each.
        covered: the share of points that its `error` is to cover.
    """

    left_out: tuple[LeftOut, ...]
    covered: float = COVERED

    @property
    def error(self) -> Error:
        """The error that a new point stays below in ``covered`` of the cases, or the largest seen.

        Of the shapes in `SHORT_US` that which asks for least of all points together.
        """
        return min(
            map(self._error, SHORT_US),
            key=lambda error: sum(error.at(point.latency_us) for point in self.left_out),
        )

    def _error(self, short_us: float) -> Error:
        """The same, for an error that doubles where a latency is as short as ``short_us``."""
        errors = sorted(point.error / (1 + short_us / point.latency_us) for point in self.left_out)
        rank = math.ceil(self.covered * (len(errors) + 1))
        share = max(0.0, errors[min(rank, len(errors)) - 1])
        return Error(share, share * short_us)

    @property
    def regret(self) -> float:
        """Of the values chosen, the mean regret."""
        return statistics.mean(point.regret for point in self.left_out)

    @property
    def worst_regret(self) -> float:
        """Of the values chosen, the largest regret."""
        return max(point.regret for point in self.left_out)


def fit(points: Sequence[Point], cutter: Cutter) -> WaveModel:
    """The model that is nearest to ``points``.

    By relative errors, in which a plan counts by the square of how near it is to the best one of
    its point: how slow a bad plan is need not be known well. The same points in any order give the
    same model.
    """
    measured = [
        (point, value, (point.latency_us[point.best] / us) ** 2, us)
        for point in sorted(points, key=_place)
        for value, us in sorted(point.latency_us.items())
    ]
    weights = np.array([weight for _, _, weight, _ in measured])
    per_us = weights / np.array([us for *_, us in measured])
    fits = []
    for occupancy in OCCUPANCIES:
        counts = [
            terms(
                cutter.cut(point.batch, point.kv_len, value),
                point.batch,
                point.kv_len,
                cutter.sm_count,
                occupancy,
            )
            for point, value, _, _ in measured
        ]
        coefficients, residual = nonnegative(np.array(counts) * per_us[:, None], weights)
        fits.append((residual, occupancy, coefficients))
    _, occupancy, coefficients = min(fits, key=lambda found: found[:2])
    return WaveModel(cutter, occupancy, rounded(TERMS, coefficients))


def rounded(names: Sequence[str], coefficients: Sequence[float]) -> dict[str, float]:
    """Microseconds of each term that has any, to `DIGITS`."""
    return {
        name: float(f"{coefficient:.{DIGITS}g}")
        for name, coefficient in zip(names, coefficients, strict=True)
        if coefficient > 0
    }


def nonnegative(
    counts: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]
) -> tuple[list[float], float]:
    """Coefficients of at least zero by least squares, and the norm of what they leave.

    Columns are scaled first: they count from launches up to tokens of a whole batch.
    """
    size = np.linalg.norm(counts, axis=0)
    size[size == 0] = 1.0
    solution, residual = optimize.nnls(counts / size, wanted)
    return [float(coefficient) for coefficient in solution / size], float(residual)


def prove(points: Sequence[Point], cutter: Cutter) -> Proof:
    """Leave each point out in turn, and see what a fit of the others says of it.

    Of more than `MOST_FITS` points several that are far apart are left out at a time.
    """
    points = sorted(points, key=_place)
    step = min(len(points), MOST_FITS)
    return Proof(
        tuple(
            _judged(model, point)
            for first in range(step)
            for model in [fit([p for i, p in enumerate(points) if i % step != first], cutter)]
            for point in points[first::step]
        )
    )


def _judged(model: WaveModel, point: Point) -> LeftOut:
    measured_us, default = point.latency_us, point.default
    predicted_us = {
        value: model.latency_us(point.batch, point.kv_len, value) for value in measured_us
    }
    length = Length(point.kv_len, [default])
    value, gain = fastest(model, point.batch, [length], list(measured_us))
    return LeftOut.of(measured_us, predicted_us, default, value=value, gain=gain)


def proven(
    points: Sequence[Point], cutter: Cutter, gate: float
) -> tuple[ProvenModel, Proof] | None:
    """A model of ``points`` with its proof; None where there are too few of them."""
    if len(points) < FEWEST_POINTS:
        return None
    values: dict[int, int] = {}
    for point in points:
        for value in point.latency_us:
            values[value] = min(point.kv_len, values.get(value, point.kv_len))
    measured = sorted({_place(point) for point in points})
    used = sorted(points, key=_place)[:: math.ceil(len(points) / MOST_POINTS)]
    proof = prove(used, cutter)
    model = ProvenModel(
        model=fit(used, cutter),
        error=proof.error,
        gate=gate,
        values=dict(sorted(values.items())),
        smallest=(measured[0][0], min(length for _, length in measured)),
        largest=outermost(measured),
    )
    return model, proof


def _place(point: Point) -> tuple[int, int]:
    return point.batch, point.kv_len


def outermost(places: Collection[_Place]) -> list[_Place]:
    """Those of ``places`` that no other is equal to or above in every number, ascending."""
    return sorted(one for one in places if not any(_exceeds(other, one) for other in places))


def _exceeds(other: tuple[int, ...], one: tuple[int, ...]) -> bool:
    return other != one and all(most >= number for most, number in zip(other, one, strict=True))
