"""The batches that tables of several backends have in common, with the time of each backend."""

__all__ = ["Point", "common_points"]

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mla_tune.catalogue.timing import Ratio, Timing
from mla_tune.shapes import BatchShape, RequestGroup, Workload
from mla_tune.table import Entry


@dataclass
class Point:
    """One workload, or one KV length of it, on several backends.

    Attributes:
        shape: the key of its entries, or the batch spec of the one length.
        weight: how often it is served; 0 for a length that was measured as a guard.
        timings: one a backend, in their order; None where its table does not have it.
        lengths: the same for single KV lengths, where all the tables name them.
        on_gpu: whether it was measured on one.
        served: microseconds with tables in use, by the backend's place; those that are known.
        fastest: the place of the fastest backend; None where fewer than two can be compared.
        next_best: the place of the second fastest.
        tied: the places of those that cannot be told from the fastest.
    """

    shape: str
    weight: float
    timings: tuple[Timing | None, ...]
    lengths: tuple["Point", ...] = ()
    on_gpu: bool = True
    served: dict[int, float] = field(init=False)
    fastest: int | None = field(init=False, default=None)
    next_best: int | None = field(init=False, default=None)
    tied: tuple[int, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        self._behind: dict[int, Ratio] = {}
        self.served = served = {}
        for place, timing in enumerate(self.timings):
            if timing is not None and timing.served_us is not None:
                served[place] = timing.served_us
        if len(served) > 1:
            first, second, *_ = sorted(served, key=served.__getitem__)
            self.fastest, self.next_best = first, second
            self.tied = tuple(
                [p for p in served if p != first and self.behind(p).is_tie(self.on_gpu)]
            )

    def behind(self, place: int) -> Ratio:
        """How many times as long a backend takes as the fastest."""
        known = self._behind.get(place)
        if known is None:
            mine, first = self.timings[place], self.timings[self.fastest or 0]
            assert mine is not None
            assert first is not None
            known = self._behind[place] = mine.over(first)
        return known


def common_points(
    tables: Sequence[dict[str, Entry]], on_gpu: bool
) -> tuple[list[Point], list[str]]:
    """A point for each shape that at least two tables have, in the order of the first that has it.

    Entries of one key may still be of different cases: then none of them is compared. Returns the
    shapes for which that is so as well.
    """
    points, differing = [], []
    for shape in dict.fromkeys(shape for table in tables for shape in table):
        entries = [table.get(shape) for table in tables]
        present = [entry for entry in entries if entry is not None]
        if len(present) < 2:
            continue
        if not all(_same_cases(*pair) for pair in itertools.combinations(present, 2)):
            differing.append(shape)
            continue
        timings = tuple([Timing.of_entry(entry) if entry else None for entry in entries])
        lengths = tuple(_lengths(entries, on_gpu)) if any(e.cases for e in present) else ()
        points.append(Point(shape, present[0].weight, timings, lengths, on_gpu))
    return points, differing


def _same_cases(one: Entry, other: Entry) -> bool:
    """Whether two entries of one key are means over the same, as far as the tables say.

    Entries that keep the default do not list their cases. They are taken for the same where the
    key, the weight and whether there were ragged batches agree.
    """
    if one.weight != other.weight or one.holds_ragged != other.holds_ragged:
        return False
    return not (one.cases and other.cases) or _weighted(one) == _weighted(other)


def _weighted(entry: Entry) -> set[tuple[int, str | None, float]]:
    return {(case.kv_len, case.shape, case.weight) for case in entry.cases if case.weight > 0}


def _lengths(entries: Sequence[Entry | None], on_gpu: bool) -> Iterator[Point]:
    """A point for each KV length of uniform batches that two of the entries name, ascending."""
    present = [entry for entry in entries if entry is not None]
    if sum(bool(entry.cases) for entry in present) < len(present):
        return
    group = Workload.parse(present[0].shape).shapes[0].groups[0]
    by_length = [
        {case.kv_len: case for case in entry.cases if case.shape is None} if entry else {}
        for entry in entries
    ]
    for kv_len in sorted({length for cases in by_length for length in cases}):
        cases = [each.get(kv_len) for each in by_length]
        if sum(case is not None for case in cases) < 2:
            continue
        timings = tuple(
            Timing.of_case(case, entry.plan) if case and entry else None
            for case, entry in zip(cases, entries, strict=True)
        )
        shape = BatchShape((RequestGroup(group.query_len, kv_len, group.count),))
        weight = next(case.weight for case in cases if case is not None)
        yield Point(str(shape), weight, timings, (), on_gpu)
