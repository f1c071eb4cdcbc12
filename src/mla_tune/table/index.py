"""Which entry of a table answers for a batch, without looking at all of them."""

__all__ = ["Index", "ratio"]

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence

from mla_tune.shapes import BatchShape, RequestGroup, Workload, format_size
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

    Keys are read when a batch of their size and query length is first asked for: who looks up one
    batch need not wait for thousands.

    Args:
        keys: of the entries, in the order of the table; each as `Workload.parse` takes it.
        guards: KV lengths that the entry at a position was measured at beside those of its key.
    """

    def __init__(
        self, keys: Sequence[str], guards: Callable[[int], Sequence[int]] = lambda _: ()
    ) -> None:
        self._keys = keys
        self._guards = guards
        self._mixed: dict[str, int] = {}
        self._uniform: dict[str, list[int]] = {}
        self._lines: dict[tuple[int, int], _Line] = {}
        for position, key in enumerate(keys):
            if "_" in key:
                self._mixed.setdefault(key, position)
            else:
                self._uniform.setdefault(key.partition("s")[0], []).append(position)

    def nearest(self, shape: BatchShape, within: float = math.inf) -> tuple[float, int]:
        """Of the entries of exactly this batch size and query length the nearest by KV length.

        Lengths that an entry spans are as near as those it was measured at. Returns the factor by
        which it is off, and its position; (inf, -1) where none is within the factor ``within``.
        """
        position, line = self._exact(shape)
        if position is not None:
            return 1.0, position
        if line is None:
            return MISS
        kv_len = shape.groups[0].kv_len
        off = line.off_by(kv_len)
        return (off, line.first_within(kv_len, off)) if off <= within else MISS

    def in_bucket(self, shape: BatchShape) -> tuple[float, int]:
        """As `nearest`, of those measured in the same eighth of an octave of KV lengths."""
        position, line = self._exact(shape)
        if position is not None:
            return 1.0, position
        asked = shape.groups[0].kv_len
        found = None if line is None else line.buckets.get(bucket_start(asked))
        if found is None:
            return MISS
        kv_len, position = found
        return ratio(kv_len, asked), position

    def _exact(self, shape: BatchShape) -> tuple[int | None, "_Line | None"]:
        """The entry of just this batch, and those of the size and query length of a uniform one."""
        if len(shape.groups) > 1:
            return self._mixed.get(str(shape)), None
        group = shape.groups[0]
        line = self._lines.get((group.count, group.query_len)) or self._read(group)
        return (None, None) if line is None else (line.exact.get(group.kv_len), line)

    def _read(self, group: RequestGroup) -> "_Line | None":
        """The entries of a batch size and query length; None where there are none."""
        count = str(group.count) if group.count > 1 else ""
        positions = self._uniform.get(f"{count}q{format_size(group.query_len)}")
        if positions is None:
            return None
        line = _Line()
        for position in positions:
            shapes = Workload.parse(self._keys[position]).shapes
            line.add([shape.groups[0].kv_len for shape in shapes], self._guards(position), position)
        line.close()
        self._lines[group.count, group.query_len] = line
        return line


class _Line:
    """The entries of one batch size and query length, by the KV lengths they span.

    Attributes:
        exact: the first position of each KV length that a key names.
        buckets: such a length and its position, by the eighth of an octave it is in.
    """

    def __init__(self) -> None:
        self.exact: dict[int, int] = {}
        self.buckets: dict[int, tuple[int, int]] = {}
        self._points: dict[int, int] = {}
        self._spans: list[tuple[int, int, int]] = []
        self._kv_lens: list[int] = []
        self._positions: list[int] = []

    def add(self, measured: Sequence[int], guards: Sequence[int], position: int) -> None:
        """Note an entry and the KV lengths that it has; positions ascend."""
        for kv_len in measured:
            self.exact.setdefault(kv_len, position)
            self.buckets.setdefault(bucket_start(kv_len), (kv_len, position))
        kv_lens = sorted([*measured, *guards])
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
