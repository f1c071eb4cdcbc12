"""In which order captured sizes are tuned when there may not be time for all."""

__all__ = ["spread_first"]

import math
from collections.abc import Iterable


def spread_first(sizes: Iterable[int], most: int) -> list[int]:
    """The smallest and the largest, then whichever is farthest, in octaves, from all before.

    Sizes above ``most``, the tokens of all of the engine's sequences, are one: a graph holds no
    more requests than there are.

    Whenever the time ends, what is decided covers all of an engine's load; and since sizes are
    close to each other where they are large, small and medium ones, which most engines run most of
    the time, come early.
    """
    left = sorted({min(size, most) for size in sizes})
    chosen: list[int] = []
    off = dict.fromkeys(left, math.inf)
    for first in dict.fromkeys((*left[:1], *left[-1:])):
        _choose(first, off, chosen)
    while off:
        _choose(max(off, key=lambda size: (off[size], -size)), off, chosen)
    return chosen


def _choose(size: int, off: dict[int, float], chosen: list[int]) -> None:
    chosen.append(size)
    del off[size]
    for other in off:
        off[other] = min(off[other], abs(math.log2(other / size)))
