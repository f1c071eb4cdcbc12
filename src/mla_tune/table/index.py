"""Where in a table the nearest entry stands, without looking at all of them."""

__all__ = ["Index", "ratio"]

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from mla_tune.shapes import BatchShape, RequestGroup, Workload

MISS = (math.inf, -1)


def ratio(one: int, other: int) -> float:
    """How far two lengths or counts are apart, as a factor of at least one."""
    return one / other if one > other else other / one


class Index:
    """Entries by their shapes, and uniform ones by query length, batch size and KV length.

    How far an entry is from a batch is the largest of three ratios: of the batch sizes, of the
    query lengths, and of the batch's KV length to the nearest that the entry spans. Single-token
    decode and longer queries are infinitely far apart, and so are batches of several kinds of
    requests from all but their exact entry. Among entries equally far the first in the table
    counts, and an exact one comes before all.
    """

    def __init__(self, workloads: Sequence[Workload]) -> None:
        self._exact: dict[tuple[RequestGroup, ...], int] = {}
        found: dict[int, dict[int, _Line]] = {}
        for position, workload in enumerate(workloads):
            for shape in workload.shapes:
                self._exact.setdefault(shape.groups, position)
            if len(workload.shapes[0].groups) == 1:
                group = workload.shapes[0].groups[0]
                line = found.setdefault(group.query_len, {}).setdefault(group.count, _Line())
                line.add(sorted(shape.max_kv_len for shape in workload.shapes), position)
        for lines in found.values():
            for line in lines.values():
                line.close()
        single = {query_len: lines for query_len, lines in found.items() if query_len == 1}
        longer = {query_len: lines for query_len, lines in found.items() if query_len > 1}
        self._single, self._longer = _Families(single), _Families(longer)

    def nearest(self, shape: BatchShape) -> tuple[float, int]:
        """The factor by which the nearest entry is off, and its position; (inf, -1) for none."""
        position = self._exact.get(shape.groups)
        if position is not None:
            return 1.0, position
        if len(shape.groups) > 1:
            return MISS
        group = shape.groups[0]
        return (self._single if group.query_len == 1 else self._longer).nearest(group)


class _Families:
    """Entries of one kind of query, by query length and batch size."""

    def __init__(self, lines: dict[int, dict[int, "_Line"]]) -> None:
        self._query_lens = sorted(lines)
        self._counts = [sorted(lines[query_len]) for query_len in self._query_lens]
        self._lines = [
            [lines[query_len][count] for count in counts]
            for query_len, counts in zip(self._query_lens, self._counts, strict=True)
        ]

    def nearest(self, asked: RequestGroup) -> tuple[float, int]:
        best, first = math.inf, -1
        count, kv_len = asked.count, asked.kv_len
        for row, off_query in _outward(self._query_lens, asked.query_len):
            if off_query > best:
                break
            lines = self._lines[row]
            for column, off_count in _outward(self._counts[row], count):
                if off_count > best:
                    break
                line = lines[column]
                off = off_count if off_count > off_query else off_query
                # As far as the best at least: only an earlier entry could still replace it.
                if off == best and line.first > first:
                    continue
                factor = max(off, line.off_by(kv_len))
                if factor < best:
                    best, first = factor, line.first_within(kv_len, factor)
                elif factor == best and line.first < first:
                    first = min(first, line.first_within(kv_len, factor))
        return best, first


def _outward(values: list[int], asked: int) -> Iterator[tuple[int, float]]:
    """The places of sorted ``values`` with their ratios to ``asked``, the nearest first."""
    above = bisect_left(values, asked)
    below, end = above - 1, len(values)
    while above < end and below >= 0:
        up, down = values[above] / asked, asked / values[below]
        if up <= down:
            yield above, up
            above += 1
        else:
            yield below, down
            below -= 1
    for place in range(above, end):
        yield place, values[place] / asked
    for place in range(below, -1, -1):
        yield place, asked / values[place]


class _Line:
    """The entries of one batch size and query length, by the KV lengths they span."""

    def __init__(self) -> None:
        self.first = -1
        self._points: dict[int, int] = {}
        self._spans: list[tuple[int, int, int]] = []
        self._kv_lens: list[int] = []
        self._positions: list[int] = []

    def add(self, kv_lens: list[int], position: int) -> None:
        """Note an entry; positions ascend."""
        if self.first < 0:
            self.first = position
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
        """The first position whose KV length is within ``factor``, which one is."""
        kv_lens = self._kv_lens
        start, end = bisect_left(kv_lens, kv_len / factor), bisect_right(kv_lens, kv_len * factor)
        # The ratio decides; a bound that is multiplied out may round past one length.
        if start and kv_len / kv_lens[start - 1] <= factor:
            start -= 1
        elif start < end and kv_len / kv_lens[start] > factor:
            start += 1
        if end < len(kv_lens) and kv_lens[end] / kv_len <= factor:
            end += 1
        elif end > start and kv_lens[end - 1] / kv_len > factor:
            end -= 1
        if not self._spans and start < end:
            return min(self._positions[start:end])
        found = [
            position
            for low, high, position in self._spans
            if ratio(kv_len, min(max(kv_len, low), high)) <= factor
        ]
        return min((*self._positions[start:end], *found))
