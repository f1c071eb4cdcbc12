"""The orders in which a race samples its plans, round by round."""

__all__ = ["balanced_orders", "order_seed"]

import hashlib
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

_Plan = TypeVar("_Plan")


def order_seed(key: str, first_round: int = 0) -> int:
    """The seed of a race's orders: the same in every process, another for every workload.

    Args:
        key: of the workload.
        first_round: how many rounds of the same contest have been before, so that a contest in
            steps does not repeat the orders of its first one.
    """
    digest = hashlib.sha256(f"{key} {first_round}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def balanced_orders(plans: Sequence[_Plan], rounds: int, seed: int) -> Iterator[tuple[_Plan, ...]]:
    """The orders of ``rounds`` rounds of ``plans``.

    In each block of as many rounds as there are plans, every plan stands once in every place. Who
    comes directly after whom is balanced too, in one block of an even number of plans and in two
    of an odd one: Williams' squares (Aust. J. Sci. Res. A 2, 149, 1949), with plans and rounds
    shuffled by ``seed``. What a place does to a latency (a clock that rises within a round, or what
    the plan before has left in the caches) then falls on all plans alike.
    """
    return islice(_endless(plans, random.Random(seed)), rounds)


def _endless(plans: Sequence[_Plan], draw: random.Random) -> Iterator[tuple[_Plan, ...]]:
    while True:
        named = draw.sample(plans, len(plans))
        for square in _squares(len(plans)):
            for row in draw.sample(square, len(square)):
                yield tuple(named[number] for number in row)


def _squares(size: int) -> tuple[list[list[int]], ...]:
    """Latin squares over which every ordered pair of neighbours occurs equally often."""
    there_and_back = [0, *(number for low in range(1, size) for number in (low, size - low))]
    first = there_and_back[:size]
    square = [[(number + shift) % size for number in first] for shift in range(size)]
    if size % 2 == 0:
        return (square,)
    return square, [row[::-1] for row in square]
