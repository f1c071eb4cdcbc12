"""What a layer's output must be, from its own weights and cache, in the precision of each token."""

__all__ = ["expected_output"]

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
    values = []
    for row in rows:
        query = batch.query[row]
        latents = cache.latents(batch.visible(row, cache.block_size))
        if row >= projected_from:
            rank, scale = model.kv_lora_rank, model.softmax_scale
            values.append(attend_up_projected(query, latents, project, rank, scale))
        else:
            rounding = rounded if row < fp8_tokens else None
            values.append(attend(query, latents, projections, model.softmax_scale, rounding))
    return Reference(torch.tensor(rows, device=parts.device), torch.stack(values))


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
