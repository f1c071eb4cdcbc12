"""What the running vLLM engine is. Imports vLLM; nothing here asks a device for data."""

__all__ = ["captured_batches", "engine_facts", "most_requests", "refusal"]

import importlib.metadata
from typing import Any

from mla_tune.environment import KERNEL_PACKAGES, described, installed_versions
from mla_tune.registry import BACKENDS
from mla_tune.table.matching import EngineFacts
from mla_tune.vllm.captures import captured_requests
from mla_tune.vllm.compat.parallel import (
    decode_context_parallel,
    local_kv_len,
    prefill_context_parallel,
)
from mla_tune.vllm.plugin.layers import ServedLayers


def engine_facts(backend: str, vllm_config: Any, layers: ServedLayers) -> EngineFacts:
    """Describe the engine of ``vllm_config`` on this process's device.

    Args:
        backend: the attention backend's name.
        vllm_config: vLLM's configuration of the engine.
        layers: those that the backend serves.
    """
    name, capability, sm_count = _device()
    parallel = vllm_config.parallel_config
    ranks = decode_context_parallel(parallel)
    heads = dict(layers.model)["num_q_heads"] * ranks
    return EngineFacts(
        backend=backend,
        device_name=name,
        compute_capability=capability,
        sm_count=sm_count,
        model=tuple((dict(layers.model) | {"num_q_heads": heads}).items()),
        kv_cache_dtype=layers.kv_cache_dtype,
        quantization=layers.quantization,
        block_size=layers.block_size,
        vllm=importlib.metadata.version("vllm"),
        max_model_len=local_kv_len(parallel, int(vllm_config.model_config.max_model_len)),
        max_cudagraph_capture_size=_largest_capture(vllm_config.compilation_config),
        packages=tuple(installed_versions(*KERNEL_PACKAGES).items()),
        digests=tuple(BACKENDS[backend].digests().items()),
        context_parallel=ranks,
        index_topk=_index_topk(vllm_config) if BACKENDS[backend].sparse else None,
    )


def _index_topk(vllm_config: Any) -> int:
    return int(vllm_config.model_config.hf_text_config.index_topk)


def _largest_capture(compilation: Any) -> int:
    mode = compilation.cudagraph_mode
    if mode is None or not mode.has_full_cudagraphs():
        return 0
    return int(compilation.max_cudagraph_capture_size or 0)


def _device() -> tuple[str, str | None, int]:
    """Name, compute capability and SM count, in the words of `mla_tune.environment`.

    On a CPU the last is what vLLM's kernels take for it, which no table is compared with.
    """
    import torch
    from vllm.platforms import current_platform

    if not current_platform.is_cuda():
        return described("cpu").device_name, None, int(current_platform.num_compute_units())
    found = described(f"cuda:{torch.cuda.current_device()}")
    return found.device_name, found.compute_capability, found.sm_count


def refusal(vllm_config: Any, *, sparse: bool = False) -> str | None:
    """Why no table can be true for this engine, whatever it says; None if one can.

    ``sparse`` says that it is asked for a sparse backend.
    """
    import vllm.envs as envs

    parallel = vllm_config.parallel_config
    if getattr(envs, "VLLM_BATCH_INVARIANT", False):
        return "VLLM_BATCH_INVARIANT fixes the split counts"
    if prefill_context_parallel(parallel) > 1:
        return "prefill context parallelism changes every shape; tables are measured without it"
    return _sparse_refusal(vllm_config) if sparse else None


def _sparse_refusal(vllm_config: Any) -> str | None:
    """What a sparse backend's indexer, drafter or cache would do otherwise than was measured."""
    attention = vllm_config.attention_config
    if vllm_config.speculative_config is not None:
        return "sparse backends were not tried with speculative decoding"
    if decode_context_parallel(vllm_config.parallel_config) > 1:
        return "under decode context parallelism each GPU attends to its own part of the top-k"
    if getattr(attention, "hisparse_config", None) is not None:
        return "with hisparse_config the KV cache lies on the host, and prefills are staged"
    if getattr(attention, "sparse_mla_force_mqa", False):
        return "sparse_mla_force_mqa leaves nothing for a threshold to decide"
    return None


def captured_batches(vllm_config: Any, decode_query_len: int) -> tuple[tuple[int, int], ...]:
    """(requests, query length) of the decode graphs the engine is going to capture.

    Empty when decode attention stays outside the graphs.
    """
    compilation = vllm_config.compilation_config
    mode = compilation.cudagraph_mode
    if mode is None or not mode.has_full_cudagraphs():
        return ()
    most = int(vllm_config.scheduler_config.max_num_seqs)
    sizes = [int(size) for size in compilation.cudagraph_capture_sizes or ()]
    return tuple(
        (requests, query_len)
        for query_len in dict.fromkeys((1, decode_query_len))
        for requests in captured_requests(sizes, query_len, most)
    )


def most_requests(vllm_config: Any) -> int:
    """The most requests of any step, with those that pad it to the size of a graph."""
    most = int(vllm_config.scheduler_config.max_num_seqs)
    sizes = vllm_config.compilation_config.cudagraph_capture_sizes or ()
    return min((int(size) for size in sizes if int(size) >= most), default=most)
