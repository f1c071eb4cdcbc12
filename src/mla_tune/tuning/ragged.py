"""The ragged cases of a graph's workload, beside the uniform ones that its shapes file lists.

Nearly every batch that is served is ragged, and few splits, which win where all requests are alike,
keep the GPU waiting for the longest one: on an H100 2 splits of 128 requests on TRITON_MLA are
3.7x as fast as the default at 4k each, and 0.59x where lengths are log-normal about 4k.
"""

__all__ = ["ragged_about", "with_ragged"]

from collections.abc import Sequence

from mla_tune.shapes import BatchShape, Case, Workload
from mla_tune.shapes.ragged import RaggedMix, RaggedSpec, log_normal, one_long
from mla_tune.tuning.guards import Fits, RaggedAbout


def with_ragged(workload: Workload, mix: RaggedMix, longest: int, fits: Fits) -> Workload:
    """A graph's workload, a share of it ragged, with a guard of one long request among short ones.

    Args:
        workload: listed cases of one batch size and query length, and their guards.
        mix: how much is ragged, and how.
        longest: the longest KV length that one request of such a batch can have in the engine.
        fits: whether shapes can be loaded together. Ragged cases that cannot are left out, and the
            weight stays with the uniform ones.
    """
    group = workload.listed[0].shape.groups[0]
    specs = mix.of_size(group.count, group.query_len)
    if group.count == 1 or (mix.share == 0 and not specs):
        return workload
    if specs:
        listed, ragged = _as_served(workload, specs, fits)
    else:
        listed, ragged = _log_normal(workload, mix, longest, fits)
    shortest = workload.listed[0].shape.max_kv_len
    if longest > shortest:
        extreme = one_long(group.count, group.query_len, longest, shortest)
        if fits((*workload.shapes, *_shapes(ragged), extreme)):
            ragged.append(Case(extreme, 0.0))
    guards = workload.cases[len(workload.listed) :]
    return Workload.of([*listed, *guards, *_distinct(ragged)])


def ragged_about(workload: Workload, mix: RaggedMix, longest: int) -> RaggedAbout | None:
    """What to guard a workload with beside uniform guards; arguments as of `with_ragged`.

    On an H100 32 splits of two requests on TRITON_MLA, 128 heads, are 3.8x as fast as the default
    where their lengths are log-normal about 1k, and 0.81x about 64k: as uniform batches they are
    1.4x there.
    """
    group = workload.listed[0].shape.groups[0]
    if group.count == 1 or (mix.share == 0 and not mix.of_size(group.count, group.query_len)):
        return None

    def about(kv_len: int) -> BatchShape:
        most = max(longest, kv_len)
        return log_normal(group.count, group.query_len, kv_len, mix.sigma, most)

    return about


def _as_served(
    workload: Workload, specs: Sequence[RaggedSpec], fits: Fits
) -> tuple[list[Case], list[Case]]:
    """The listed cases with the weight that the ragged ones of ``specs`` leave, and these."""
    ragged: list[Case] = []
    left = 1.0
    for spec in specs:
        batch = spec.batch()
        # A block is a coarse measure of lengths that are nearly the same.
        if len(batch.groups) > 1 and fits((*workload.shapes, *_shapes(ragged), batch)):
            ragged.append(Case(batch, workload.weight * spec.share))
            left -= spec.share
    return [Case(case.shape, case.weight * left) for case in workload.listed], ragged


def _log_normal(
    workload: Workload, mix: RaggedMix, longest: int, fits: Fits
) -> tuple[list[Case], list[Case]]:
    """The listed cases, each without the weight of the ragged one about its length, and these."""
    group = workload.listed[0].shape.groups[0]
    listed: list[Case] = []
    ragged: list[Case] = []
    for case in workload.listed:
        kv_len = case.shape.max_kv_len
        batch = log_normal(group.count, group.query_len, kv_len, mix.sigma, max(longest, kv_len))
        if len(batch.groups) == 1 or not fits((*workload.shapes, *_shapes(ragged), batch)):
            listed.append(case)
            continue
        listed.append(Case(case.shape, case.weight * (1 - mix.share)))
        ragged.append(Case(batch, case.weight * mix.share))
    return listed, ragged


def _shapes(cases: list[Case]) -> list[BatchShape]:
    return [case.shape for case in cases]


def _distinct(cases: list[Case]) -> list[Case]:
    """Batches that rounding has made the same are one, with the weight of both."""
    weights: dict[BatchShape, float] = {}
    for case in cases:
        weights[case.shape] = weights.get(case.shape, 0.0) + case.weight
    return [Case(shape, weight) for shape, weight in weights.items()]
