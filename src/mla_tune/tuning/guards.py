"""Guard cases: KV lengths that an engine serves beside those that its shapes file lists.

A captured graph has one split count for all of them, so what wins at the listed lengths may lose at
others. No plan is chosen for a guard, and none is published that makes it slower.
"""

__all__ = ["Fits", "RaggedAbout", "guard_lengths", "guarded", "with_ragged_guards"]

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace

from mla_tune.shapes import BatchShape, Case, RequestGroup, Workload
from mla_tune.shapes.buckets import bucket_start

SHORTEST = 256
"""Where guards begin. On an H100 a request of FLASH_ATTN_MLA at 4k lost 5 % to a cap that was
chosen for 16k and more."""

STEP = 4
"""From one guard to the next below the longest listed length: latency is smooth in KV length."""

Fits = Callable[[Sequence[BatchShape]], bool]

RaggedAbout = Callable[[int], BatchShape]
"""A ragged batch whose mean KV length, in tokens, is given, or less where the engine ends."""


def guarded(
    workload: Workload, longest: int, fits: Fits, ragged: RaggedAbout | None = None
) -> Workload:
    """A graph's workload with guards up to ``longest`` tokens of KV, or as far as they fit.

    Args:
        workload: listed cases of one batch size and query length, and ragged ones.
        longest: the longest KV length of that batch in the engine.
        fits: whether shapes can be loaded together.
        ragged: gives the ragged batch to guard beside each uniform one that is longer than what is
            listed; None: no batch is ragged.
    """
    last = max(case.shape.max_kv_len for case in workload.listed)

    def up_to(kv_len: int) -> Workload:
        return _with_guards(workload, kv_len, ragged)

    if fits(up_to(longest).shapes):
        return up_to(longest)
    # By eighths of an octave: free memory differs a little from run to run, journals go on.
    lengths = [last, *_buckets(last, longest)]
    fitting = bisect_left(lengths, True, key=lambda kv_len: not fits(up_to(kv_len).shapes))
    return up_to(lengths[fitting - 1]) if fitting else workload


def _with_guards(workload: Workload, longest: int, ragged: RaggedAbout | None) -> Workload:
    group = workload.listed[0].shape.groups[0]
    listed = [case.shape.max_kv_len for case in workload.listed]
    guards = [
        Case(BatchShape.of([RequestGroup(group.query_len, kv_len, group.count)]), 0.0)
        for kv_len in guard_lengths(listed, longest)
        if kv_len > group.query_len
    ]
    return with_ragged_guards(Workload.of([*workload.cases, *guards]), ragged)


def with_ragged_guards(workload: Workload, ragged: RaggedAbout | None) -> Workload:
    """A ragged guard beside each uniform one that is longer than what is listed.

    What is listed has ragged batches of its own, and shorter ones gain the most. Without
    ``ragged`` no batch is.
    """
    if ragged is None:
        return workload
    last = max(case.shape.max_kv_len for case in workload.listed)
    lengths = [case.shape.max_kv_len for case in workload.cases if not case.is_ragged]
    # Near the longest that a request may be, some are the same.
    guards = dict.fromkeys(ragged(kv_len) for kv_len in lengths if kv_len > last)
    added = [Case(shape, 0.0) for shape in guards if shape not in workload.shapes]
    return replace(workload, cases=Workload.of([*workload.cases, *added]).cases)


def guard_lengths(listed: Sequence[int], longest: int) -> list[int]:
    """KV lengths to guard beside the ``listed`` ones, ascending.

    ``longest`` and the powers of two between the longest listed one and it; below, every second
    power of two that no listed length is within a factor of two of.
    """
    last = max(listed)
    below = (SHORTEST * STEP**power for power in range(16))
    between = [n for n in below if n < last and all(n > 2 * kv or 2 * n < kv for kv in listed)]
    if longest <= last:
        return [n for n in between if n < longest]
    octaves = (2**power for power in range(31))
    # No octave so near to one of the ends that it would say the same.
    above = [n for n in octaves if 4 * n >= 5 * last and 5 * n <= 4 * longest]
    return [*between, *above, longest]


def _buckets(last: int, longest: int) -> list[int]:
    """Where the eighths of an octave start, from above ``last`` to ``longest``."""
    found = []
    kv_len = bucket_start(longest)
    while kv_len > last:
        found.append(kv_len)
        kv_len = bucket_start(kv_len - 1)
    return found[::-1]
