"""Where in a table the nearest entry stands, without looking at all of them."""

__all__ = ["Index", "ratio"]

import math
from bisect import bisect_left
from collections.abc import Sequence

from mla_tune.shapes import BatchShape, RequestGroup, Workload

MISS = (math.inf, -1)
NONE = 2**63
"""Beyond every position and every length."""


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

    Args:
        workloads: of the entries, in the order of the table.
        guards: KV lengths that each entry was measured at beside those of its workload.
    """

    def __init__(
        self, workloads: Sequence[Workload], guards: Sequence[Sequence[int]] | None = None
    ) -> None:
        self._exact: dict[tuple[RequestGroup, ...], int] = {}
        found: dict[int, dict[int, _Line]] = {}
        beside = guards if guards is not None else [()] * len(workloads)
        for position, (workload, more) in enumerate(zip(workloads, beside, strict=True)):
            for shape in workload.shapes:
                self._exact.setdefault(shape.groups, position)
            if len(workload.shapes[0].groups) == 1:
                group = workload.shapes[0].groups[0]
                line = found.setdefault(group.query_len, {}).setdefault(group.count, _Line())
                measured = [shape.max_kv_len for shape in workload.shapes]
                line.add(sorted([*measured, *more]), position)
        for lines in found.values():
            for line in lines.values():
                line.close()
        single = {query_len: lines for query_len, lines in found.items() if query_len == 1}
        longer = {query_len: lines for query_len, lines in found.items() if query_len > 1}
        self._single, self._longer = _Families(single), _Families(longer)
        self._lines = found

    def nearest(self, shape: BatchShape, within: float = math.inf) -> tuple[float, int]:
        """The factor by which the nearest entry is off, and its position.

        (inf, -1) where none is within the factor ``within``; the smaller it is, the fewer are
        looked at.
        """
        position = self._exact.get(shape.groups)
        if position is not None:
            return 1.0, position
        if len(shape.groups) > 1:
            return MISS
        group = shape.groups[0]
        families = self._single if group.query_len == 1 else self._longer
        return families.nearest(group, within)

    def nearest_of_batch(self, shape: BatchShape, within: float = math.inf) -> tuple[float, int]:
        """As `nearest`, among the entries of exactly ``shape``'s batch size and query length."""
        position = self._exact.get(shape.groups)
        if position is not None:
            return 1.0, position
        group = shape.groups[0]
        line = self._lines.get(group.query_len, {}).get(group.count)
        if len(shape.groups) > 1 or line is None:
            return MISS
        off = line.off_by(group.kv_len)
        return (off, line.first_within(group.kv_len, off)) if off <= within else MISS


class _Families:
    """Entries of one kind of query, by query length and batch size."""

    def __init__(self, lines: dict[int, dict[int, "_Line"]]) -> None:
        self._query_lens = sorted(lines)
        self._rows = [_Row(lines[query_len]) for query_len in self._query_lens]

    def nearest(self, asked: RequestGroup, within: float) -> tuple[float, int]:
        limit = best = math.nextafter(within, math.inf)
        query_lens = self._query_lens
        above = bisect_left(query_lens, asked.query_len)
        for place in range(above, len(query_lens)):
            off = query_lens[place] / asked.query_len
            if off >= best:
                break
            best = self._rows[place].least(asked, off, best)
        for place in range(above - 1, -1, -1):
            off = asked.query_len / query_lens[place]
            if off >= best:
                break
            best = self._rows[place].least(asked, off, best)
        if best == limit:
            return MISS
        # Entries of other lengths and sizes may be just as far.
        first = NONE
        for place in range(*_within(query_lens, asked.query_len, best)):
            first = self._rows[place].first(asked, best, first)
        return best, first


class _Row:
    """Entries of one query length, by batch size."""

    def __init__(self, lines: dict[int, "_Line"]) -> None:
        self._counts = sorted(lines)
        self._lines = [lines[count] for count in self._counts]
        self._low = min(line.low for line in self._lines)
        self._high = max(line.high for line in self._lines)

    def least(self, asked: RequestGroup, off_query: float, best: float) -> float:
        """The factor to the nearest entry, or ``best`` where none is nearer."""
        counts, count, kv_len = self._counts, asked.count, asked.kv_len
        floor = max(off_query, self._off_by(kv_len))
        above = bisect_left(counts, count)
        for place in range(above, len(counts)):
            off = counts[place] / count
            if off >= best or floor >= best:
                break
            off = max(floor, off, self._lines[place].off_by(kv_len))
            best = off if off < best else best
        for place in range(above - 1, -1, -1):
            off = count / counts[place]
            if off >= best or floor >= best:
                break
            off = max(floor, off, self._lines[place].off_by(kv_len))
            best = off if off < best else best
        return best

    def first(self, asked: RequestGroup, factor: float, first: int) -> int:
        """The first position within ``factor``, if it is before ``first``."""
        if self._off_by(asked.kv_len) > factor:
            return first
        for place in range(*_within(self._counts, asked.count, factor)):
            line = self._lines[place]
            if line.first < first:
                first = min(first, line.first_within(asked.kv_len, factor))
        return first

    def _off_by(self, kv_len: int) -> float:
        """The least that any entry of the row is off."""
        if kv_len < self._low:
            return self._low / kv_len
        return kv_len / self._high if kv_len > self._high else 1.0


class _Line:
    """The entries of one batch size and query length, by the KV lengths they span."""

    def __init__(self) -> None:
        self.first = -1
        self.low, self.high = NONE, 0
        self._points: dict[int, int] = {}
        self._spans: list[tuple[int, int, int]] = []
        self._kv_lens: list[int] = []
        self._positions: list[int] = []

    def add(self, kv_lens: list[int], position: int) -> None:
        """Note an entry; positions ascend."""
        if self.first < 0:
            self.first = position
        self.low, self.high = min(self.low, kv_lens[0]), max(self.high, kv_lens[-1])
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
