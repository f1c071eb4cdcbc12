"""What vLLM's own configuration of an engine says, read in a process that has imported vLLM."""

__all__ = ["NotTunable", "no_choice", "served_engine"]

import importlib.metadata
import inspect
from typing import Any

from mla_tune.environment import described
from mla_tune.quantization import BLOCK, PER_BLOCK, PER_TENSOR, UNQUANTIZED
from mla_tune.serving.engine import ServedDevice, ServedEngine
from mla_tune.shapes import MlaDimensions
from mla_tune.vllm import compat
from mla_tune.vllm.compat.parallel import decode_context_parallel, prefill_context_parallel
from mla_tune.vllm.memory import latent_bytes
from mla_tune.vllm.plugin.engine import refusal

_SAME_AS_ACTIVATIONS = ("bfloat16", "float16", "half")
_DIMENSIONS = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")


class NotTunable(Exception):
    """VLLM serves this, and no table can be made for it."""


def served_engine(vllm_config: Any) -> ServedEngine:
    """Describe the engine of ``vllm_config``.

    Raises:
        NotTunable: no table can be for such an engine; says why.
        ValueError: vLLM refuses the attention backend that was asked for.
    """
    model, parallel = vllm_config.model_config, vllm_config.parallel_config
    if not model.use_mla:
        name = ", ".join(model.architectures)
        raise NotTunable(f"{name} has no multi-head latent attention in vLLM: nothing to tune")
    if prefill_context_parallel(parallel) > 1:
        raise NotTunable("no table is made for prefill context parallelism")
    ranks = decode_context_parallel(parallel)
    heads = int(model.get_num_attention_heads(parallel))
    dims = _dimensions(model, heads * ranks)
    backend = _backend(vllm_config, dims.latent_dim, heads)
    compilation, cache = vllm_config.compilation_config, vllm_config.cache_config
    dtype = _kv_cache_dtype(cache, backend)
    graphs = compilation.cudagraph_mode
    return ServedEngine(
        vllm=importlib.metadata.version("vllm"),
        device=_device(),
        model=dims,
        kv_cache_dtype=dtype,
        block_size=int(cache.block_size) if _is_asked(cache) else None,
        quantization=_quantization(vllm_config),
        max_model_len=-(-int(model.max_model_len) // ranks),
        max_num_seqs=int(vllm_config.scheduler_config.max_num_seqs),
        capture_sizes=tuple(map(int, compilation.cudagraph_capture_sizes or ())),
        decode_graphs=bool(graphs is not None and graphs.has_full_cudagraphs()),
        draft_tokens=_draft_tokens(vllm_config),
        kv_cache_tokens=_kv_cache_tokens(vllm_config, dtype, dims.latent_dim),
        index_topk=_index_topk(model),
        backend=backend,
        context_parallel=ranks,
        num_gpus=_num_gpus(parallel),
        refusal=refusal(vllm_config, sparse=_index_topk(model) is not None),
    )


def no_choice(vllm_config: Any) -> str | None:
    """Why the backend of this engine is not ours to choose; None where it is."""
    asked, parallel = vllm_config.attention_config, vllm_config.parallel_config
    if asked.backend is not None:
        return f"the command chooses {asked.backend.name}"
    if getattr(asked, "backend_per_kind", None):
        return "the command chooses by --attention-config"
    if vllm_config.kv_transfer_config is not None:
        return "its KV cache is read elsewhere too (--kv-transfer-config)"
    drafter = getattr(vllm_config.speculative_config, "draft_model_config", None)
    if drafter is not None and not drafter.use_mla:
        return "the drafter has no latent attention, and --attention-backend is for it too"
    if _ranks_here(parallel) > _num_gpus(parallel) or _is_one_of_several(parallel):
        return "the engine has GPUs of several hosts, and each would pick by itself"
    return None


def _is_one_of_several(parallel: Any) -> bool:
    everywhere = int(parallel.data_parallel_size)
    local = int(getattr(parallel, "data_parallel_size_local", everywhere))
    return int(getattr(parallel, "nnodes", 1)) > 1 or local < everywhere


def _dimensions(model: Any, heads: int) -> MlaDimensions:
    text_config = model.hf_text_config
    found: dict[str, Any] = {name: getattr(text_config, name, None) for name in _DIMENSIONS}
    if missing := [name for name, value in found.items() if value is None]:
        raise NotTunable(f"the configuration of the model does not give {', '.join(missing)}")
    return MlaDimensions(heads, **{name: int(value) for name, value in found.items()})


def _index_topk(model: Any) -> int | None:
    topk = getattr(model.hf_text_config, "index_topk", None)
    return None if topk is None else int(topk)


def _draft_tokens(vllm_config: Any) -> int:
    # Of 0.32 on; a drafter may verify another number of tokens than it reserves room for.
    query_len = getattr(vllm_config, "uniform_decode_query_len", None)
    if query_len is not None:
        return int(query_len) - 1
    speculative = vllm_config.speculative_config
    return int(speculative.num_speculative_tokens) if speculative is not None else 0


def _is_asked(cache: Any) -> bool:
    return bool(getattr(cache, "user_specified_block_size", False))


def _kv_cache_dtype(cache: Any, backend: str | None) -> str:
    """As the layers have it: `get_mla_attention_kv_cache_dtype` of vLLM's mla_attention.py."""
    dtype = str(cache.cache_dtype)
    if dtype.startswith("fp8") and backend == "FLASHMLA_SPARSE":
        return "fp8_ds_mla"
    return "auto" if dtype in _SAME_AS_ACTIVATIONS else dtype


def _quantization(vllm_config: Any) -> str:
    """Of the checkpoint, or the one asked for; a layer that is left out of it has its own."""
    name = vllm_config.model_config.quantization
    config = vllm_config.quant_config
    if name is None or config is None:
        return UNQUANTIZED
    block = getattr(config, "weight_block_size", None)
    scheme = getattr(config, "activation_scheme", "dynamic")
    if name == "fp8" and scheme == "dynamic":
        if block is None:
            return PER_TENSOR
        if tuple(block) == BLOCK:
            return PER_BLOCK
    return str(name)


def _kv_cache_tokens(vllm_config: Any, dtype: str, latent_dim: int) -> int | None:
    """As `mla_tune.vllm.plugin.reach.most_kv_tokens` finds it in the engine.

    None for a hybrid model, only some of whose layers keep latents, and for pipeline stages.
    """
    model, parallel = vllm_config.model_config, vllm_config.parallel_config
    num_bytes = _cache_bytes(vllm_config.cache_config)
    is_hybrid = bool(getattr(model, "is_hybrid", False))
    if num_bytes is None or parallel.pipeline_parallel_size > 1 or is_hybrid:
        return None
    layers = int(model.get_total_num_hidden_layers())
    rounded_up = -(-num_bytes // 2**30) * 2**30
    return int(rounded_up // (layers * latent_bytes(dtype, latent_dim)))


def _cache_bytes(cache: Any) -> int | None:
    given = getattr(cache, "kv_cache_memory_bytes", None)
    if given is not None:
        return int(given)
    platform = compat.symbol("vllm.platforms", "current_platform")
    if not platform.is_cuda():
        return None
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    return int(total * cache.gpu_memory_utilization)


def _ranks_here(parallel: Any) -> int:
    """On this host, if it has GPUs for all ranks of a replica."""
    ranks = int(parallel.tensor_parallel_size * parallel.pipeline_parallel_size)
    return ranks * max(int(getattr(parallel, "data_parallel_size_local", 1)), 1)


def _num_gpus(parallel: Any) -> int:
    ranks = _ranks_here(parallel)
    if not compat.symbol("vllm.platforms", "current_platform").is_cuda():
        return ranks
    import torch

    return min(ranks, torch.cuda.device_count())  # the others are of other hosts


def _device() -> ServedDevice:
    is_cuda = compat.symbol("vllm.platforms", "current_platform").is_cuda()
    found = described("cuda:0" if is_cuda else "cpu")
    return ServedDevice(found.device_name, found.compute_capability, found.sm_count)


def _backend(vllm_config: Any, latent_dim: int, heads: int) -> str | None:
    """The backend that vLLM's layers will get; None where only a GPU can tell."""
    if not compat.symbol("vllm.platforms", "current_platform").is_cuda():
        asked = vllm_config.attention_config.backend
        return None if asked is None else str(asked.name)
    model = vllm_config.model_config
    select = compat.symbol("vllm.v1.attention.selector", "get_attn_backend")
    wanted = {
        "use_mla": True,
        "use_sparse": _index_topk(model) is not None,
        "num_heads": heads,
        "block_size": None,  # before 0.26; the others find it in the configuration
    }
    known = inspect.signature(select).parameters
    with compat.symbol("vllm.config", "set_current_vllm_config")(vllm_config):
        chosen = select(
            latent_dim,
            model.dtype,
            vllm_config.cache_config.cache_dtype,
            **{name: value for name, value in wanted.items() if name in known},
        )
    return str(chosen.get_name())
