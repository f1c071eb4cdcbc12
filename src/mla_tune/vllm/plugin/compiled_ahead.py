"""Compiling the launches of an engine's tables while it starts, and not while it serves."""

__all__ = ["compile_ahead"]

import logging
import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from mla_tune.plan.launch import launch_of
from mla_tune.plan.plan import Plan
from mla_tune.vllm.log import logger
from mla_tune.vllm.plugin.deployment import Deployment
from mla_tune.vllm.plugin.launches import LaunchFields
from mla_tune.vllm.plugin.splits import SplitLengths
from mla_tune.vllm.plugin.state import once


def compile_ahead(
    builder: Any, deployment: Deployment, lengths: SplitLengths, fields: LaunchFields
) -> None:
    """Run the decode kernel once for each launch and split count that the tables may ask for.

    Triton compiles for dtypes, constants and the divisibility of strides, none of which depends on
    the number of requests: one row is enough, with as many splits as its plan has. A launch that
    the GPU refuses is left out here, before anything is captured with it.

    Args:
        builder: vLLM's, of layers that are loaded.
        deployment: of the builder.
        lengths: how a number of splits is asked for.
        fields: what a step's metadata has for a launch.
    """
    wanted = _wanted(deployment)
    if not wanted:
        return
    started = time.monotonic()
    try:
        layer = builder.vllm_config.compilation_config.static_forward_context[
            builder.layer_names[0]
        ]
        for plan in wanted:
            splits = plan.number("num_kv_splits")
            length = builder.vllm_config.model_config.max_model_len
            if splits is not None:
                length, _ = lengths.asking_for(splits, 1)
            if length is not None:
                _run_once(layer, builder, length, fields.of(plan))
    except Exception as error:
        once(
            logging.WARNING,
            "mla-tune: TRITON_MLA's launches are compiled at their first step, which waits for it: "
            f"{type(error).__name__}: {error}",
        )
        return
    seconds = time.monotonic() - started
    logger.info("mla-tune: TRITON_MLA: %d launches compiled in %.1f s", len(wanted), seconds)


def _wanted(deployment: Deployment) -> list[Plan]:
    """One plan for each launch and split count, of the graphs to come and of eager steps."""
    if deployment.lookups is None:
        return []
    plans: Iterable[Plan] = [choice.plan for choice in deployment.planned.values()]
    eager = deployment.lookups.eager_table
    plans = [*plans, *(entry.plan for entry in (eager.entries if eager is not None else ()))]
    kernels = {(plan.number("num_kv_splits"), launch_of(plan)): plan for plan in plans}
    return [plan for (_, launch), plan in kernels.items() if launch]


def _run_once(layer: Any, builder: Any, max_seq_len: int, fields: Any) -> None:
    """One row of queries over one token, as the layer hands them to its impl."""
    import torch
    from vllm.platforms import current_platform

    config, impl, device = builder.vllm_config, layer.impl, builder.device
    dtype = config.model_config.dtype
    width = impl.kv_lora_rank + impl.qk_rope_head_dim
    block_size = builder.kv_cache_spec.block_size
    blocks = -(-config.model_config.max_model_len // block_size)
    is_fp8 = str(layer.kv_cache_dtype).startswith("fp8")
    cache = torch.zeros(1, block_size, width, dtype=dtype, device=device)
    if is_fp8:
        cache = cache.to(current_platform.fp8_dtype())
    decode = SimpleNamespace(
        block_table=torch.zeros(1, blocks, dtype=torch.int32, device=device),
        seq_lens=torch.ones(1, dtype=torch.int32, device=device),
    )
    metadata = SimpleNamespace(
        decode=decode,
        max_seq_len=max_seq_len,
        num_decodes=1,
        num_decode_tokens=1,
        causal=True,
        **dict(fields),
    )
    queries = torch.zeros(1, impl.num_heads, width, dtype=dtype, device=device)
    with torch.inference_mode():
        impl.forward_mqa(queries, cache, metadata, layer)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
