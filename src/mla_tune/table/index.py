"""Which entry of a table answers for a batch, without looking at all of them."""

__all__ = ["Index", "ratio"]

import math
from bisect import bisect_left
from collections.abc import Sequence

from mla_tune.shapes import BatchShape, RequestGroup, Workload
from mla_tune.shapes.buckets import bucket_start

MISS = (math.inf, -1)
NONE = 2**63
"""Beyond every position."""


def ratio(one: int, other: int) -> float:
    """How far two lengths or counts are apart, as a factor of at least one."""
    return one / other if one > other else other / one


class Index:
    """Entries by their shapes, and uniform ones by batch size, query length and KV length.

    Batches of several kinds of requests are answered by their exact entry alone, and an exact one
    comes before all. Of entries that are as near the first in the table counts.

    Args:
        workloads: of the entries, in the order of the table.
        guards: KV lengths that each entry was measured at beside those of its workload.
    """

    def __init__(
        self, workloads: Sequence[Workload], guards: Sequence[Sequence[int]] | None = None
    ) -> None:
        self._exact: dict[tuple[RequestGroup, ...], int] = {}
        self._lines: dict[tuple[int, int], _Line] = {}
        self._buckets: dict[tuple[int, int, int], tuple[int, int]] = {}
        beside = guards if guards is not None else [()] * len(workloads)
        for position, (workload, more) in enumerate(zip(workloads, beside, strict=True)):
            shapes = workload.shapes
            for shape in shapes:
                self._exact.setdefault(shape.groups, position)
            group, *others = shapes[0].groups
            if others:
                continue
            measured = [shape.groups[0].kv_len for shape in shapes]
            batch = group.count, group.query_len
            line = self._lines.get(batch)
            if line is None:
                line = self._lines[batch] = _Line()
            line.add(sorted([*measured, *more]), position)
            for kv_len in measured:
                bucket = (*batch, bucket_start(kv_len))
                self._buckets.setdefault(bucket, (kv_len, position))
        for line in self._lines.values():
            line.close()

    def nearest(self, shape: BatchShape, within: float = math.inf) -> tuple[float, int]:
        """Of the entries of exactly this batch size and query length the nearest by KV length.

        Lengths that an entry spans are as near as those it was measured at. Returns the factor by
        which it is off, and its position; (inf, -1) where none is within the factor ``within``.
        """
        position = self._exact.get(shape.groups)
        if position is not None:
            return 1.0, position
        group = shape.groups[0]
        line = self._lines.get((group.count, group.query_len))
        if len(shape.groups) > 1 or line is None:
            return MISS
        off = line.off_by(group.kv_len)
        return (off, line.first_within(group.kv_len, off)) if off <= within else MISS

    def in_bucket(self, shape: BatchShape) -> tuple[float, int]:
        """As `nearest`, of those measured in the same eighth of an octave of KV lengths."""
        position = self._exact.get(shape.groups)
        if position is not None:
            return 1.0, position
        group = shape.groups[0]
        found = self._buckets.get((group.count, group.query_len, bucket_start(group.kv_len)))
        if len(shape.groups) > 1 or found is None:
            return MISS
        kv_len, position = found
        return ratio(kv_len, group.kv_len), position


class _Line:
    """The entries of one batch size and query length, by the KV lengths they span."""

    def __init__(self) -> None:
        self._points: dict[int, int] = {}
        self._spans: list[tuple[int, int, int]] = []
        self._kv_lens: list[int] = []
        self._positions: list[int] = []

    def add(self, kv_lens: list[int], position: int) -> None:
        """Note an entry; positions ascend."""
        if kv_lens[0] == kv_lens[-1]:
            self._points.setdefault(kv_lens[0], position)
        else:
            self._spans.append((kv_lens[0], kv_lens[-1], position))

    def close(self) -> None:
        """Sort what was added."""
        self._kv_lens = sorted(self._points)
        self._positions = [self._points[kv_len] for kv_len in self._kv_lens]

    def off_by(self, kv_len: int) -> float:
        """The ratio to the nearest KV length that an entry has or spans."""
        kv_lens = self._kv_lens
        above = bisect_left(kv_lens, kv_len)
        off = kv_lens[above] / kv_len if above < len(kv_lens) else math.inf
        if above:
            down = kv_len / kv_lens[above - 1]
            off = down if down < off else off
        for low, high, _ in self._spans:
            off = min(off, ratio(kv_len, min(max(kv_len, low), high)))
        return off

    def first_within(self, kv_len: int, factor: float) -> int:
        """The first position whose KV length is within ``factor``."""
        start, end = _within(self._kv_lens, kv_len, factor)
        first = min(self._positions[start:end], default=NONE)
        for low, high, position in self._spans:
            if ratio(kv_len, min(max(kv_len, low), high)) <= factor:
                first = min(first, position)
        return first


def _within(values: list[int], asked: int, factor: float) -> tuple[int, int]:
    """From and to where sorted ``values`` are within ``factor`` of ``asked``.

    By steps from the middle: the factor is the least that anything is off, so there are few.
    """
    start = end = bisect_left(values, asked)
    while start and asked / values[start - 1] <= factor:
        start -= 1
    while end < len(values) and values[end] / asked <= factor:
        end += 1
    return start, end
