"""``eager:`` of a shapes file: a region of single-token decodes, by the few points that tell it."""

__all__ = ["eager_cases", "spread"]

import math
from collections.abc import Sequence
from itertools import product

from mla_tune.errors import InputError
from mla_tune.files.document import Document
from mla_tune.shapes.batch import BatchShape, RequestGroup
from mla_tune.shapes.sections import EagerSection
from mla_tune.shapes.workload import Case


def eager_cases(document: Document, section: EagerSection | None) -> list[Case]:
    """The batches to measure for a region; none where the file has no such section.

    Raises:
        InputError: a region without an inside, or one that has fewer points than are asked for.
    """
    if section is None:
        return []
    batches = _between(document, "batch_sizes", section.batch_sizes, (1.0, 1.5))
    kv_lens = _between(document, "kv_lens", section.kv_lens, (1.0,))
    if len(batches) * len(kv_lens) < section.points:
        raise InputError(
            f"{document.where(('eager', 'points'))}: {section.points} points of a region that has "
            f"{len(batches)} batch sizes and {len(kv_lens)} KV lengths",
            valid=f"up to {len(batches) * len(kv_lens)}",
        )
    return [
        Case(BatchShape.of([RequestGroup(1, kv_len, batch)]))
        for batch, kv_len in sorted(spread(list(product(batches, kv_lens)), section.points))
    ]


def _between(
    document: Document, key: str, ends: tuple[int, int], steps: tuple[float, ...]
) -> list[int]:
    """Both ends, and between them the powers of two times each of ``steps``."""
    first, last = ends
    if first >= last:
        raise InputError(
            f"{document.where(('eager', key))}: {key} from {first} to {last}",
            valid="the smallest and the largest, in this order",
        )
    octaves = range(last.bit_length())
    inside = {int(step * 2**octave) for octave in octaves for step in steps}
    return sorted({first, last} | {value for value in inside if first < value < last})


def spread(places: Sequence[tuple[int, int]], points: int) -> list[tuple[int, int]]:
    """So many of the ``places`` (requests, KV length), each far from the others.

    First the ends of the smallest and of the largest batch, then one after the other that which is
    farthest, in octaves, from all before. A model's terms are products of powers of these two, so
    that what is far apart tells it most.
    """
    by_batch: dict[int, list[int]] = {}
    for batch, kv_len in places:
        by_batch.setdefault(batch, []).append(kv_len)
    chosen = [
        (batch, end(by_batch[batch]))
        for batch in (min(by_batch), max(by_batch))
        for end in (min, max)
    ]
    off = {place: min(_octaves(place, other) for other in chosen) for place in places}
    while len(chosen) < points:
        # Of several the cheapest.
        chosen.append(max(off, key=lambda place: (off[place], -place[0] * place[1])))
        for place in off:
            off[place] = min(off[place], _octaves(place, chosen[-1]))
    return chosen


def _octaves(one: tuple[int, int], other: tuple[int, int]) -> float:
    return math.hypot(math.log2(one[0] / other[0]), math.log2(one[1] / other[1]))
