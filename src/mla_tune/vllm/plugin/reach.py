"""How many tokens an engine's KV cache can hold, known before vLLM has sized it."""

__all__ = ["most_kv_tokens"]

from typing import Any

from mla_tune.table.matching import EngineFacts
from mla_tune.vllm.memory import latent_bytes
from mla_tune.vllm.plugin.layers import plain_dtype


def most_kv_tokens(vllm_config: Any, facts: EngineFacts) -> int | None:
    """An upper bound, from what the engine may give to its KV cache; None where there is none.

    That is ``kv_cache_memory_bytes``, else all memory it may use; weights and activations are not
    taken off. ``num_gpu_blocks`` says less: vLLM sets it to a minimum while it measures what graphs
    take. All ranks have to come to one figure, or they would run untuned: memory counts in whole
    GiB, rounded up, and nothing is said of pipeline stages, which differ in layers.
    """
    layers = _layers(vllm_config, facts)
    num_bytes = _cache_bytes(vllm_config.cache_config, facts)
    if num_bytes is None or not layers or vllm_config.parallel_config.pipeline_parallel_size > 1:
        return None
    model = dict(facts.model)
    latent_dim = model["kv_lora_rank"] + model["qk_rope_head_dim"]
    rounded_up = -(-num_bytes // 2**30) * 2**30
    return int(rounded_up // (layers * latent_bytes(facts.kv_cache_dtype, latent_dim)))


def _layers(vllm_config: Any, facts: EngineFacts) -> int:
    """How many layers keep such latents for every token."""
    context = vllm_config.compilation_config.static_forward_context
    return sum(
        hasattr(layer, "kv_b_proj") and plain_dtype(layer.kv_cache_dtype) == facts.kv_cache_dtype
        for layer in context.values()
    )


def _cache_bytes(cache_config: Any, facts: EngineFacts) -> int | None:
    given = getattr(cache_config, "kv_cache_memory_bytes", None)
    if given is not None:
        return int(given)
    if facts.compute_capability is None:
        return None
    import torch

    device = torch.cuda.get_device_properties(torch.cuda.current_device())
    return int(device.total_memory * cache_config.gpu_memory_utilization)
