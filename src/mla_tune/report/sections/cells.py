"""An entry of a table as single batches, each with its comparison with the default."""

__all__ = ["Cell", "Kind", "cells_of", "placed_cells", "plan_text"]

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from mla_tune.plan.plan import Plan
from mla_tune.shapes import BatchShape, RequestGroup, Workload, format_size
from mla_tune.table import CaseResult, Entry, Speedup

COMMON = 0.2
"""The share of the batch sizes from which on a KV length has a column of its own."""


class Kind(Enum):
    """Which batches are shown beside one another."""

    DECODE = "requests of one length and one new token each"
    RAGGED = "requests of several lengths and one new token each"
    LONGER = "several new tokens, or several query lengths"


@dataclass(frozen=True)
class Cell:
    """One batch of an entry.

    Attributes:
        entry: that it is of.
        shape: the batch.
        latency_us, default_us: medians; None where the entry has them of all its batches alone.
        speedup: None where the entry keeps the default, or could not be compared with it.
        is_guard: whether it is of no weight.
    """

    entry: Entry
    shape: BatchShape
    latency_us: float | None = None
    default_us: float | None = None
    speedup: Speedup | None = None
    is_guard: bool = False

    @property
    def kind(self) -> Kind:
        if self.shape.query_lens != (1,):
            return Kind.LONGER
        return Kind.RAGGED if len(self.shape.groups) > 1 else Kind.DECODE

    @property
    def name(self) -> str:
        """The batch spec; of a ragged batch, which may have hundreds of lengths, in words."""
        if self.kind is not Kind.RAGGED:
            return str(self.shape)
        longest = format_size(self.shape.max_kv_len)
        return f"{self.shape.num_requests} ragged, mean {self.mean_kv_len}, longest {longest}"

    @property
    def mean_kv_len(self) -> int:
        return round(self.shape.num_kv_tokens / self.shape.num_requests)

    @property
    def keeps_default(self) -> bool:
        return not self.entry.plan and self.entry.unproven is None

    @property
    def told_gain(self) -> str:
        if self.keeps_default:
            return "default kept"
        return str(self.speedup) if self.speedup else "not compared"


def cells_of(entry: Entry) -> Iterator[Cell]:
    """Its cases; where it lists none, what its key names."""
    shapes = Workload.parse(entry.shape).shapes
    if entry.cases:
        for case in entry.cases:
            yield _of_case(entry, case, shapes[0].groups[0])
    elif len(shapes) == 1:
        yield Cell(entry, shapes[0], entry.latency_us, entry.default_us, entry.speedup)
    else:
        for shape in shapes:
            yield Cell(entry, shape)


def _of_case(entry: Entry, case: CaseResult, first: RequestGroup) -> Cell:
    if case.shape is None:
        shape = BatchShape((RequestGroup(first.query_len, case.kv_len, first.count),))
    else:
        shape = BatchShape.parse(case.shape)
    gain = case.speedup if entry.plan or entry.unproven else None
    return Cell(entry, shape, case.latency_us, case.default_us, gain, case.weight == 0)


def placed_cells(cells: Sequence[Cell]) -> Mapping[tuple[int, tuple[float, str]], Cell]:
    """Decodes by their batch size and their column, which is its place and its name.

    What an engine serves at most, and so the longest guard, differs from size to size; such
    lengths share the last column, each size with its longest.
    """
    lengths = Counter(_column(cell) for cell in cells)
    num_batches = len({cell.shape.num_requests for cell in cells})
    placed: dict[tuple[int, tuple[float, str]], Cell] = {}
    for cell in sorted(cells, key=lambda cell: cell.shape.max_kv_len):
        column = _column(cell)
        if lengths[column] < COMMON * num_batches:
            column = (math.inf, "longest")
        placed[cell.shape.num_requests, column] = cell
    return placed


def _column(cell: Cell) -> tuple[float, str]:
    if cell.kind is Kind.DECODE:
        return cell.shape.max_kv_len, format_size(cell.shape.max_kv_len)
    if cell.is_guard:
        return math.inf, "one long"
    # Lengths that were drawn about one mean differ a little.
    mean = 2 ** round(math.log2(cell.mean_kv_len))
    return mean, format_size(mean)


def plan_text(plan: Plan | None) -> str:
    """A plan as people read it."""
    return str(plan) if plan else "default"
