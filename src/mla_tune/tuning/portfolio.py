"""The few launches that together are good on all representatives."""

__all__ = ["MOST_LAUNCHES", "portfolio"]

import math
from collections.abc import Mapping, Sequence

from mla_tune.plan.plan import Plan

MOST_LAUNCHES = 3
LEAST_GAIN = 1.005
"""A further launch has to make the representatives faster by so much in the mean, each with its
best launch. Three samples beside the incumbent cannot tell less."""


def portfolio(
    ratios: Sequence[Mapping[Plan, float]], most: int = MOST_LAUNCHES
) -> tuple[Plan, ...]:
    """Take the launch that gains most, then the one that gains most beside it, and so on.

    Args:
        ratios: one mapping a representative: the time with a launch over that with the backend's
            own, which is always there. A launch that is missing was dropped, or failed.
        most: how many to take at most.
    """
    chosen: list[Plan] = []
    launches = dict.fromkeys(launch for each in ratios for launch in each)
    while len(chosen) < most and launches:
        best = min(launches, key=lambda launch: _mean(ratios, [*chosen, launch]))
        if _mean(ratios, chosen) - _mean(ratios, [*chosen, best]) < math.log(LEAST_GAIN):
            break
        chosen.append(best)
        del launches[best]
    return tuple(chosen)


def _mean(ratios: Sequence[Mapping[Plan, float]], launches: Sequence[Plan]) -> float:
    """The mean log time over the representatives, each with the best of ``launches`` or its own."""
    best = (min([1.0, *(each[one] for one in launches if one in each)]) for each in ratios)
    return math.fsum(map(math.log, best)) / len(ratios)
