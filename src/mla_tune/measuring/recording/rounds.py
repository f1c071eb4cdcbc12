"""Recorded samples of one plan, held in eight bytes each."""

__all__ = ["Rounds"]

import math
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import overload

# What a sample can be: below a picosecond or above ten days is damage.
_LEAST_US, _MOST_US = 1e-6, 1e12
_NUMBERS = (float, int)  # and no bool, which is an int


class Rounds(Sequence[tuple[float, ...]]):
    """Rounds of samples, each with one latency in microseconds a case; NaN where it was left out.

    A list of tuples would take ten times the memory: a night's recording has millions.
    """

    def __init__(self, num_cases: int) -> None:
        self._num_cases = num_cases
        self._latencies_us = array("d")

    def extend(self, rounds: Iterable[Sequence[float | None]]) -> None:
        """Add ``rounds``; None stands where a case was left out.

        Raises:
            ValueError: a round with another number of cases, or a latency that is none.
        """
        rounds = list(rounds)
        for cases in rounds:
            if not isinstance(cases, list | tuple) or len(cases) != self._num_cases:
                raise ValueError(f"a round of {cases!r:.80}, but {self._num_cases} KV lengths")
            if cases and all(latency_us is None for latency_us in cases):
                raise ValueError("a latency of None microseconds in every case of a round")
        latencies_us = list(chain.from_iterable(rounds))
        for latency_us in latencies_us:
            if latency_us is None:
                continue
            # Not converted first: an int may be beyond every float.
            if type(latency_us) not in _NUMBERS or not _LEAST_US <= latency_us <= _MOST_US:
                raise ValueError(f"a latency of {latency_us!r:.80} microseconds")
        self._latencies_us.extend(math.nan if us is None else us for us in latencies_us)

    def __len__(self) -> int:
        return len(self._latencies_us) // self._num_cases

    @overload
    def __getitem__(self, index: int) -> tuple[float, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[float, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[float, ...] | list[tuple[float, ...]]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        first = range(len(self))[index] * self._num_cases
        return tuple(self._latencies_us[first : first + self._num_cases])

    @property
    def num_samples(self) -> int:
        """Latencies in all."""
        return len(self._latencies_us)
