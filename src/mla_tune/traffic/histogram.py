"""What an engine has served: steps counted by kind, in bounded space."""

__all__ = [
    "MOST_KINDS",
    "StepKind",
    "TrafficHistogram",
    "kv_bucket_end",
    "kv_bucket_middle",
    "kv_bucket_start",
]

import math
from collections import Counter
from typing import NamedTuple

# A shapes file takes the 200 most served kinds; twenty times as many leaves the tail to see.
MOST_KINDS = 4096

_EXACT_UP_TO = 16


class StepKind(NamedTuple):
    """One kind of step, or of the decode part or the prefill part of a mixed one.

    Attributes:
        mode: ``graph`` for the replay of a captured graph, else ``eager``.
        outcome: what the tables said: ``hit``, ``miss``, ``mixed``, ``skewed`` …
        batch: requests; in graph mode those that the graph was captured for.
        query_len: new tokens a request.
        kv_len, longest_kv_len: mean and longest of the requests, without the rows that pad a
            graph.
    """

    mode: str
    outcome: str
    batch: int
    query_len: int
    kv_len: int
    longest_kv_len: int


def kv_bucket_start(length: int) -> int:
    """Round a length down to a half octave: 1024 stands for 1024 to 1448, 1449 for up to 2047.

    A shapes file rounds lengths to the nearest power of two by ratio. All lengths of one such
    bucket round to the same power, so that the histogram loses nothing the shapes file needs. Up
    to 16 every length has its own bucket.
    """
    if length <= _EXACT_UP_TO:
        return length
    low = 1 << (length.bit_length() - 1)
    if length * length <= 2 * low * low:
        return low
    return math.isqrt(2 * low * low) + 1


def kv_bucket_middle(length: int) -> int:
    """The middle of the half octave that ``length`` is in: 1236 for 1024."""
    return (kv_bucket_start(length) + kv_bucket_end(length)) // 2


def kv_bucket_end(length: int) -> int:
    """The last length of the half octave that ``length`` is in: 1448 for 1024."""
    start = kv_bucket_start(length)
    if start < _EXACT_UP_TO:
        return start
    octave = 1 << (start.bit_length() - 1)
    return math.isqrt(2 * octave * octave) if start == octave else 2 * octave - 1


class TrafficHistogram:
    """Steps counted by kind, at most `MOST_KINDS` of these.

    Steps of further kinds are counted in ``others``, by mode and outcome, so that the totals stay
    right.

    Attributes:
        counts: of each kind, how many steps there were and the sum of their real requests.
        others: steps by mode and outcome.
    """

    def __init__(self) -> None:
        self.counts: dict[StepKind, list[int]] = {}
        self.others: Counter[tuple[str, str]] = Counter()

    def add(self, kind: StepKind, requests: int) -> None:
        """Count one step of ``kind`` with ``requests`` real requests."""
        count = self.counts.get(kind)
        if count is not None:
            count[0] += 1
            count[1] += requests
        elif len(self.counts) < MOST_KINDS:
            self.counts[kind] = [1, requests]
        else:
            self.others[kind.mode, kind.outcome] += 1

    def merge(self, newer: "TrafficHistogram") -> None:
        """Add the counts of ``newer``, and keep the kinds with the most steps.

        A kind that is dropped and comes back later starts from zero: once ``others`` holds
        anything, the counts of single kinds are lower bounds.
        """
        for kind, (steps, requests) in newer.counts.items():
            count = self.counts.setdefault(kind, [0, 0])
            count[0] += steps
            count[1] += requests
        self.others.update(newer.others)
        for kind in self.most_served()[MOST_KINDS:]:
            self.others[kind.mode, kind.outcome] += self.counts.pop(kind)[0]

    def most_served(self) -> list[StepKind]:
        """The kinds by descending number of steps."""
        return sorted(self.counts, key=lambda kind: -self.counts[kind][0])

    @property
    def total(self) -> int:
        """All steps, those in ``others`` included."""
        return sum(steps for steps, _ in self.counts.values()) + self.others.total()
