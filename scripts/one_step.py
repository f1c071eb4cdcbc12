"""One step of a session's layer, built by the builder that vLLM's registry gave it."""

__all__ = ["arrival_problem", "captured_step", "one_step"]

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from mla_tune.shapes import BatchShape
from mla_tune.vllm.compat import layers
from mla_tune.vllm.observe import set_for_now
from mla_tune.vllm.session.config import current_config
from mla_tune.vllm.session.session import VllmSession

MOST_APART = 0.02
"""Of an output from its reference, over its largest: kernels of 16 bits are well within."""


def one_step(session: VllmSession, shape: BatchShape) -> tuple[Any, float]:
    """Build and run ``shape``, which is loaded, with no plan of the session's.

    Returns the metadata, and how far the output is from a float64 reference, over its largest.
    """
    build = functools.partial(session.parts.builder.build, 0)
    return _step(session, shape, build, shape.max_kv_len)


def captured_step(session: VllmSession, shape: BatchShape, builder: Any) -> tuple[Any, float]:
    """As `one_step`, built by ``builder`` as for the capture of a graph."""
    build = builder.build_for_cudagraph_capture
    return _step(session, shape, build, session.setup.max_model_len)


def arrival_problem(counts: Any, verified: int, apart: float) -> str:
    """What is wrong with a step of the plugin's builder, or an empty string.

    Args:
        counts: the deployment's, after the step.
        verified: how many plans had been seen to arrive before it.
        apart: of the step's output, as `one_step` gives it.
    """
    if counts.not_applied or counts.fallbacks or counts.verified == verified:
        return f"not applied: {counts}"
    return f"wrong result: off by {apart:.3g} of the largest" if apart > MOST_APART else ""


def _step(
    session: VllmSession, shape: BatchShape, build: Callable[[Any], Any], longest: int
) -> tuple[Any, float]:
    parts, batch = session.parts, session._batches[shape]
    picked: AbstractContextManager[None] = nullcontext()
    if batch.topk is not None:
        picked = set_for_now(parts.impl, "topk_indices_buffer", batch.topk)
    with torch.no_grad(), current_config(parts.vllm_config), picked:
        metadata = build(batch.metadata(longest))
        if batch.topk is not None:
            layers.announce_topk(parts.impl)
        parts.layer.forward_impl(
            batch.query, batch.kv_c, batch.k_pe, session.cache.blocks, metadata, output=batch.output
        )
    reference = session.reference(shape)
    apart = (batch.output[reference.rows].double() - reference.values).abs().max()
    return metadata, float(apart / reference.values.abs().max())
