"""Which backend is the fastest where: by batch size and KV length."""

__all__ = ["Region", "regions"]

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mla_tune.catalogue.points import Point
from mla_tune.shapes import Workload, format_size


@dataclass(frozen=True)
class Region:
    """Batch sizes next to each other at which the same backends are the fastest.

    Attributes:
        query_len: new tokens of each request.
        kv_lens: one KV length, or all that share an entry: ``4k``, ``1k,4k,16k``.
        batches: the smallest and the largest of the measured sizes.
        fastest: place of the fastest backend.
        tied: places of those that cannot be told from it.
        ahead: by which factors it is ahead of the next: the least and the most over the sizes.
    """

    query_len: int
    kv_lens: str
    batches: tuple[int, int]
    fastest: int
    tied: tuple[int, ...]
    ahead: tuple[float, float]


def regions(points: Iterable[Point]) -> list[Region]:
    """The regions of uniform batches, by query length, KV length and batch size."""
    rows: dict[tuple[int, int, str], list[tuple[int, Point]]] = {}
    for point in points:
        for each in point.lengths or (point,):
            shapes = Workload.parse(each.shape).shapes
            group, *others = shapes[0].groups
            if others or each.fastest is None:
                continue
            lengths = [shape.groups[0].kv_len for shape in shapes]
            key = group.query_len, max(lengths), ",".join(map(format_size, lengths))
            rows.setdefault(key, []).append((group.count, each))
    found = []
    for (query_len, _, kv_lens), row in sorted(rows.items()):
        row.sort(key=lambda item: item[0])
        # Sizes that are next to each other and have the same outcome.
        for _, run in itertools.groupby(row, key=lambda item: (item[1].fastest, item[1].tied)):
            found.append(_region(query_len, kv_lens, list(run)))
    return found


def _region(query_len: int, kv_lens: str, run: Sequence[tuple[int, Point]]) -> Region:
    first = run[0][1]
    assert first.fastest is not None
    nearest = [(point, point.next_best) for _, point in run]
    factors = [point.behind(place).value for point, place in nearest if place is not None]
    return Region(
        query_len,
        kv_lens,
        (run[0][0], run[-1][0]),
        first.fastest,
        first.tied,
        (min(factors), max(factors)),
    )
