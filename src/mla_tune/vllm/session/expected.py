"""What a layer's output must be, from its own weights and cache, in the precision of each token."""

__all__ = ["expected_output"]

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mla_tune.session import Reference, Setup
from mla_tune.vllm.session.config import current_config
from mla_tune.vllm.session.inputs import Batch, LatentCache
from mla_tune.vllm.session.parts import Parts
from mla_tune.vllm.session.reference import (
    Projections,
    attend,
    attend_up_projected,
    reference_rows,
    rounded_to_fp8,
)

if TYPE_CHECKING:
    import torch

TOKENS_AT_ONCE = 1 << 16
"""Of the contexts that are looked at together: 300 MB of latents in float64."""


def expected_output(
    setup: Setup,
    parts: Parts,
    batch: Batch,
    cache: LatentCache,
    *,
    fp8_tokens: int,
    projected_from: int,
) -> Reference:
    """The result for ``batch`` over ``cache``; the last two are those of `Session.reference`."""
    import torch

    model = setup.model
    projections = Projections.of(parts.weight, model.num_q_heads, model.qk_nope_head_dim)
    project = partial(_up_projected, setup, parts)
    rounded = partial(rounded_to_fp8, dtype=parts.dtype, q_scale=float(parts.layer._q_scale))
    rows = reference_rows(batch.requests)
    values: dict[int, torch.Tensor] = {}
    for some in _alike(rows, batch, (fp8_tokens, projected_from)):
        query, slots = batch.query[some], batch.visible(some, cache.block_size)
        latents = cache.latents(slots.flatten()).unflatten(0, slots.shape)
        if some[0] >= projected_from:
            rank, scale = model.kv_lora_rank, model.softmax_scale
            pairs = zip(query, latents, strict=True)
            found = [attend_up_projected(*pair, project, rank, scale) for pair in pairs]
        else:
            rounding = rounded if some[0] < fp8_tokens else None
            found = [*attend(query, latents, projections, model.softmax_scale, rounding)]
        values |= zip(some, found, strict=True)
    every = torch.stack([values[row] for row in rows])
    return Reference(torch.tensor(rows, device=parts.device), every)


def _alike(rows: Sequence[int], batch: Batch, bounds: Sequence[int]) -> Iterator[list[int]]:
    """Rows on the same sides of ``bounds`` that see alike many tokens, a few at a time.

    A GPU's host launches some dozen kernels for them, instead of for each.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, length in zip(rows, batch.contexts(rows), strict=True):
        groups.setdefault((length, *(row >= bound for bound in bounds)), []).append(row)
    for (length, *_), group in groups.items():
        at_once = max(1, TOKENS_AT_ONCE // length)
        for first in range(0, len(group), at_once):
            yield group[first : first + at_once]


def _up_projected(
    setup: Setup, parts: Parts, compressed: "torch.Tensor"
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Keys without their rotary part, and values, as the layer's own ``kv_b_proj`` has them."""
    import torch

    model = setup.model
    with torch.no_grad(), current_config(parts.vllm_config):
        both = parts.layer.kv_b_proj(compressed.to(parts.dtype))[0].double()
    sizes = (model.qk_nope_head_dim, model.v_head_dim)
    keys, values = both.view(len(both), model.num_q_heads, -1).split(sizes, dim=-1)
    return keys, values
