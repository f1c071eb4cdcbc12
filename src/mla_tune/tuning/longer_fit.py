"""Fitting the model of both paths to extends, and proving it on those that it has not seen."""

__all__ = ["LongerPoint", "fit", "longer", "prove", "with_choice"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mla_tune.plan.cut import Cutter
from mla_tune.table.between import Longer
from mla_tune.table.longer import (
    DECODE_TERMS,
    PREFILL,
    PREFILL_TERMS,
    Extend,
    Paths,
    decode_terms,
    prefill_terms,
)
from mla_tune.tuning.wave_fit import (
    FEWEST_POINTS,
    MOST_FITS,
    MOST_POINTS,
    LeftOut,
    Proof,
    nonnegative,
    outermost,
    rounded,
)

COVERED = 1.0
"""Of the points that were left out, those whose error the proof has to hold for: all. Two paths
have heavier tails than one kernel: with 95 %, one of ten plans for fresh extends was 5 % slower."""


@dataclass(frozen=True)
class LongerPoint:
    """What was measured of one uniform batch of several query tokens.

    Attributes:
        extend: the batch.
        default: what it has untuned: a value of the split knob, or `PREFILL`.
        latency_us: by the same; the default among them.
    """

    extend: Extend
    default: int
    latency_us: Mapping[int, float]

    @property
    def best_us(self) -> float:
        """The least latency."""
        return min(self.latency_us.values())


def fit(points: Sequence[LongerPoint], cutter: Cutter) -> Paths:
    """The model that is nearest to ``points``, by relative errors.

    On the decode path a plan counts by the square of how near it is to the best of its point, as
    in `wave_fit.fit`; the prefill path, often many times as slow, by its root.
    """
    decode, prefill = [], []
    for point in sorted(points, key=lambda point: point.extend):
        for value, us in sorted(point.latency_us.items()):
            near = point.best_us / us
            if value == PREFILL:
                prefill.append((prefill_terms(point.extend), us, math.sqrt(near)))
            else:
                decode.append((decode_terms(cutter, point.extend, value), us, near**2))
    return Paths(cutter, _fitted(DECODE_TERMS, decode), _fitted(PREFILL_TERMS, prefill))


def _fitted(
    names: Sequence[str], measured: Sequence[tuple[tuple[float, ...], float, float]]
) -> dict[str, float]:
    if not measured:
        return {}
    weights = np.array([weight for *_, weight in measured])
    per_us = weights / np.array([us for _, us, _ in measured])
    counts = np.array([counts for counts, *_ in measured])
    return rounded(names, nonnegative(counts * per_us[:, None], weights)[0])


def longer(points: Sequence[LongerPoint], cutter: Cutter, threshold: int) -> Longer | None:
    """A model of ``points`` with its proof; None where they are too few for one.

    Args:
        points: measured extends.
        cutter: how the decode kernel cuts a batch.
        threshold: the backend's own.
    """
    points = sorted(points, key=lambda point: point.extend)
    points = points[:: math.ceil(len(points) / MOST_POINTS) or 1]
    choices = with_choice(points, threshold)
    knob = {point.default for point in choices if point.default > 0}
    if len(choices) < FEWEST_POINTS or len(knob) != 1:
        return None
    proof, paths = prove(points, choices, cutter), fit(points, cutter)
    # Of extends that all have a context, the two are one.
    if not ("launch" in paths.decode_us and {"launch", "context"} & paths.prefill_us.keys()):
        return None  # noise alone: nothing is computed in no time
    measured = {point.extend for point in points}
    error = proof.error
    return Longer(
        decode_us=dict(paths.decode_us),
        prefill_us=dict(paths.prefill_us),
        error=error.share,
        error_us=error.us,
        points=len(choices),
        regret=proof.regret,
        worst_regret=proof.worst_regret,
        threshold=threshold,
        default=knob.pop(),
        values=tuple(sorted({v for point in choices for v in point.latency_us} - {PREFILL})),
        smallest=Extend(*(min(lengths) for lengths in zip(*measured, strict=True))),
        largest=tuple(outermost(measured)),
    )


def with_choice(points: Sequence[LongerPoint], threshold: int) -> list[LongerPoint]:
    """Those that were measured in several ways and may be given each of them."""
    return [
        point
        for point in points
        if len(point.latency_us) > 1 and point.extend.query_len <= threshold
    ]


def prove(points: Sequence[LongerPoint], choices: Sequence[LongerPoint], cutter: Cutter) -> Proof:
    """Leave each point with a choice out in turn, and see what a fit of the others says of it."""
    step = min(len(choices), MOST_FITS)
    left_out = []
    for first in range(step):
        chosen = choices[first::step]
        paths = fit([point for point in points if point not in chosen], cutter)
        left_out += [_judged(paths, point) for point in chosen]
    return Proof(tuple(left_out), COVERED)


def _judged(paths: Paths, point: LongerPoint) -> LeftOut:
    measured_us, default = point.latency_us, point.default
    predicted_us = {value: paths.latency_us(point.extend, value) for value in measured_us}
    value = min(measured_us, key=lambda value: (predicted_us[value], value != default))
    gain = predicted_us[default] / predicted_us[value]
    return LeftOut.of(measured_us, predicted_us, default, value=value, gain=gain)
