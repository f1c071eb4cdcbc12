"""One step of a session's layer, built by the builder that vLLM's registry gave it."""

__all__ = ["one_step"]

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from mla_tune.shapes import BatchShape
from mla_tune.vllm.compat import layers
from mla_tune.vllm.observe import set_for_now
from mla_tune.vllm.session.config import current_config
from mla_tune.vllm.session.session import VllmSession


def one_step(session: VllmSession, shape: BatchShape) -> tuple[Any, float]:
    """Build and run ``shape``, which is loaded, with no plan of the session's.

    Returns the metadata, and how far the output is from a float64 reference, over its largest.
    """
    parts, batch = session.parts, session._batches[shape]
    picked: AbstractContextManager[None] = nullcontext()
    if batch.topk is not None:
        picked = set_for_now(parts.impl, "topk_indices_buffer", batch.topk)
    with torch.no_grad(), current_config(parts.vllm_config), picked:
        metadata = parts.builder.build(0, batch.metadata(shape.max_kv_len))
        if batch.topk is not None:
            layers.announce_topk(parts.impl)
        parts.layer.forward_impl(
            batch.query, batch.kv_c, batch.k_pe, session.cache.blocks, metadata, output=batch.output
        )
    reference = session.reference(shape)
    apart = (batch.output[reference.rows].double() - reference.values).abs().max()
    return metadata, float(apart / reference.values.abs().max())
