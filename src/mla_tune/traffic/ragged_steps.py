"""From the steps that replayed graphs to the ragged batches of a shapes file."""

__all__ = ["FEWEST_STEPS", "MOST_OF_SIZE", "ragged_lines", "ragged_of"]

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from statistics import fmean
from typing import NamedTuple

from mla_tune.shapes import format_size
from mla_tune.shapes.lengths import SKEWED_BEYOND
from mla_tune.shapes.ragged import GRAIN, RaggedSpec
from mla_tune.traffic.histogram import StepKind, kv_bucket_middle

MOST_OF_SIZE = 4
"""Ragged batches of one size; a plan is measured on each of them."""

FEWEST_STEPS = 100
"""Of a size whose ragged batches are named: fewer say too little of what it will serve."""

MOST_SHARE = 0.95
"""Of a size's steps: the entry's key names uniform batches, which are measured for what is left."""


class _Lengths(NamedTuple):
    """Mean and longest KV length of so many steps."""

    mean: float
    longest: float
    steps: float


def ragged_of(served: Mapping[StepKind, int], max_model_len: int) -> list[RaggedSpec]:
    """The ragged batches that stand for what each captured size has served.

    A step is ragged where its longest request is over `SKEWED_BEYOND` times its mean. The ragged
    steps of a size are cut at the middle of whichever differs more, mean or longest, and both
    halves again. Each quarter becomes a batch of its average mean and its average longest length:
    a kernel's time is nearly linear in both, so that it takes what these steps take on average.

    Args:
        served: steps by kind; of a graph's ``batch`` is the size it was captured for.
        max_model_len: the engine's longest KV length.

    Returns:
        At most `MOST_OF_SIZE` a size, ascending; none of a size with fewer than `FEWEST_STEPS`.
    """
    totals: dict[tuple[int, int], int] = {}
    ragged: dict[tuple[int, int], dict[tuple[int, int], int]] = {}
    for kind, steps in served.items():
        if kind.mode != "graph" or kind.batch == 1:
            continue
        size = kind.batch, kind.query_len
        totals[size] = totals.get(size, 0) + steps
        mean, longest = kv_bucket_middle(kind.kv_len), kv_bucket_middle(kind.longest_kv_len)
        if longest > SKEWED_BEYOND * mean:
            of_size = ragged.setdefault(size, {})
            of_size[mean, longest] = of_size.get((mean, longest), 0) + steps
    found: list[RaggedSpec] = []
    for size, of_size in sorted(ragged.items()):
        if totals[size] >= FEWEST_STEPS:
            lengths = [_Lengths(*pair, steps) for pair, steps in sorted(of_size.items())]
            found += _specs(size, lengths, totals[size], max_model_len)
    return found


def _specs(
    size: tuple[int, int], lengths: Sequence[_Lengths], total: int, max_model_len: int
) -> Iterator[RaggedSpec]:
    """One for each part of the ragged steps of a size that has served ``total``."""
    requests, query_len = size
    all_ragged = sum(each.steps for each in lengths)
    most = min(1.0, MOST_SHARE * total / all_ragged)
    parts = [_average(part) for part in _cut(lengths, MOST_OF_SIZE)]
    for mean, longest, steps in sorted(parts, key=lambda part: (part.longest, part.mean)):
        mean_kv = max(query_len + 1, _in_blocks(mean))
        # Both come from half octaves, and a batch of that mean need not have such a request: of two
        # none has twice the mean. The others keep a quarter of it, about the middle of what can be.
        possible = mean_kv + (requests - 1) * (mean_kv - max(query_len + 1, mean_kv // 4))
        longest_kv = min(_in_blocks(longest), possible, max_model_len)
        share = round(steps / total * most, 3)
        if longest_kv > mean_kv and share:
            yield RaggedSpec(requests, query_len, mean_kv, longest_kv, share)


def _cut(lengths: Sequence[_Lengths], parts: int) -> list[Sequence[_Lengths]]:
    """Cut into so many parts of about equally many steps, or one each where there are fewer."""
    if parts == 1 or len(lengths) == 1:
        return [lengths]
    axis = max((1, 0), key=lambda axis: _spread(lengths, axis))
    ordered = sorted(lengths, key=lambda each: (each[axis], each))
    passed = list(accumulate(each.steps for each in ordered))
    middle = min(range(1, len(ordered)), key=lambda end: abs(passed[end - 1] - passed[-1] / 2))
    first = parts // 2
    return _cut(ordered[:middle], first) + _cut(ordered[middle:], parts - first)


def _spread(lengths: Sequence[_Lengths], axis: int) -> float:
    """How far the steps are apart by ratio: the variance of the logarithms."""
    steps = [each.steps for each in lengths]
    logs = [math.log2(each[axis]) for each in lengths]
    middle = fmean(logs, steps)
    return fmean([(log - middle) ** 2 for log in logs], steps)


def _average(lengths: Sequence[_Lengths]) -> _Lengths:
    steps = [each.steps for each in lengths]
    mean = fmean([each.mean for each in lengths], steps)
    return _Lengths(mean, fmean([each.longest for each in lengths], steps), sum(steps))


def _in_blocks(length: float) -> int:
    """Rounded to whole blocks of the KV cache, but for what is shorter."""
    return round(length / GRAIN) * GRAIN if length >= GRAIN else round(length)


def ragged_lines(specs: Sequence[RaggedSpec]) -> Iterator[str]:
    """The section of a shapes file; nothing where there are none."""
    if not specs:
        return
    yield "# Ragged batches of captured sizes, as served: requests of that length in the mean, the"
    yield "# longest, and the share of the size's steps. Other sizes get log-normal ones."
    yield "ragged_specs:"
    for spec in specs:
        batch = f"{spec.requests}q{spec.query_len}s{format_size(spec.mean_kv)}"
        longest = format_size(spec.longest_kv)
        yield f"  - {{spec: {batch}, longest: {longest}, share: {spec.share:g}}}"
