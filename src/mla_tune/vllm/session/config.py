"""A `VllmConfig` as an engine would have it, made without any download, and what a layer needs.

The engine is one with CUDA graphs on, as production runs it: eager shapes are batches of that
engine that no graph covers, not batches of an engine without graphs.
"""

__all__ = ["current_config", "make_config", "start_single_rank", "use_cpu_platform"]

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mla_tune.errors import UnavailableError
from mla_tune.session import Setup
from mla_tune.vllm import compat
from mla_tune.vllm.compat import graphs
from mla_tune.vllm.observe import set_for_now

if TYPE_CHECKING:
    import torch

SEED = 0


def use_cpu_platform() -> None:
    """Make vLLM take this process for one on a CPU, so that Triton's interpreter is used.

    Raises:
        UnavailableError: vLLM was imported under another platform before.
    """
    platforms = compat.module("vllm.platforms")
    cpu = compat.symbol("vllm.platforms.cpu", "CpuPlatform")
    if isinstance(platforms._current_platform, cpu):
        return
    if "vllm.v1.attention.backend" in sys.modules:
        raise UnavailableError(
            "vLLM is already imported in this process, for another platform",
            remedy="open the session on the CPU in a process of its own",
        )
    platforms._current_platform = cpu()


def make_config(setup: Setup, block_size: int, dtype: str, *, sparse: bool) -> Any:
    """Build the config of a one-layer DeepSeek model on one GPU.

    Args:
        setup: dimensions, lengths and KV dtype.
        block_size: tokens in a block of the KV cache.
        dtype: of the activations, ``bfloat16`` or ``float16``.
        sparse: whether the model has an indexer that picks the top-k tokens.
    """
    config = compat.module("vllm.config")
    max_tokens = max(setup.max_num_query_tokens, setup.max_num_requests)
    with tempfile.TemporaryDirectory(prefix="mla-tune-") as folder:
        text = json.dumps(_hf_config(setup, sparse=sparse))
        Path(folder, "config.json").write_text(text, encoding="utf-8")
        with _model_looked_at_here():
            model_config = config.ModelConfig(
                model=folder,
                skip_tokenizer_init=True,
                dtype=dtype,
                seed=SEED,
                max_model_len=setup.max_model_len,
            )
        vllm_config = config.VllmConfig(
            model_config=model_config,
            cache_config=config.CacheConfig(
                block_size=block_size,
                cache_dtype=setup.kv_cache_dtype,
                enable_prefix_caching=False,
            ),
            scheduler_config=config.SchedulerConfig(
                max_num_seqs=setup.max_num_requests,
                max_num_batched_tokens=max_tokens,
                max_model_len=setup.max_model_len,
                is_encoder_decoder=False,
                enable_chunked_prefill=True,
            ),
            attention_config=_attention_config(setup.backend),
        )
    _capture_as_production(vllm_config, setup.max_cudagraph_capture_size)
    return vllm_config


@contextmanager
def _model_looked_at_here() -> Iterator[None]:
    """Let vLLM see here what the model can, and not in a process that it starts for that.

    It spares its own process a CUDA context, which this one has; and the other imports torch and
    all of vLLM again, for 23 s of a first start (H100, 0.33). Later starts find it in vLLM's cache.
    """
    registry = compat.module("vllm.model_executor.models.registry")
    if not hasattr(registry, "_run_in_subprocess"):
        yield
        return
    with set_for_now(registry, "_run_in_subprocess", lambda look: look()):
        yield


def _hf_config(setup: Setup, *, sparse: bool) -> dict[str, Any]:
    """A DeepSeek-V2 ``config.json``; only the attention's dimensions matter."""
    model = setup.model
    fields: dict[str, Any] = {
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        "num_attention_heads": model.num_q_heads,
        "num_key_value_heads": model.num_q_heads,
        "kv_lora_rank": model.kv_lora_rank,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": model.qk_nope_head_dim,
        "qk_rope_head_dim": model.qk_rope_head_dim,
        "v_head_dim": model.v_head_dim,
        "hidden_size": 64 * model.num_q_heads,
        "intermediate_size": 1024,
        "moe_intermediate_size": 1024,
        "num_hidden_layers": 1,
        "vocab_size": 1024,
        "max_position_embeddings": setup.max_model_len,
        "torch_dtype": "bfloat16",
    }
    if sparse:
        fields |= {"index_topk": setup.index_topk, "index_n_heads": 64, "index_head_dim": 128}
    return fields


def _attention_config(backend: str) -> Any:
    registry = compat.symbol("vllm.v1.attention.backends.registry", "AttentionBackendEnum")
    if backend not in registry.__members__:
        raise UnavailableError(f"this release of vLLM has no backend {backend}")
    return compat.symbol("vllm.config", "AttentionConfig")(backend=registry[backend])


def _capture_as_production(vllm_config: Any, asked: int | None) -> None:
    """Capture batches up to ``asked`` tokens, or as an engine of at least 256 sequences does.

    vLLM derives it from ``max_num_seqs``, which is small here because workspaces are sized by it.
    """
    compilation = vllm_config.compilation_config
    if compilation.max_cudagraph_capture_size:
        platform = compat.symbol("vllm.platforms", "current_platform")
        capability = platform.get_device_capability()
        major = 0 if capability is None else capability.major
        compilation.max_cudagraph_capture_size = asked or graphs.graph_capture_limit(major)


@contextmanager
def current_config(vllm_config: Any) -> Iterator[None]:
    """Make ``vllm_config`` the one that vLLM's own functions ask for."""
    with compat.symbol("vllm.config", "set_current_vllm_config")(vllm_config):
        yield


def start_single_rank(device: "torch.device") -> None:
    """Start the process groups of a world of one, unless the process has them.

    The layer and its builder ask for their rank even on one GPU.
    """
    import torch.distributed

    state = "vllm.distributed.parallel_state"
    if not torch.distributed.is_initialized():
        handle, path = tempfile.mkstemp(prefix="mla-tune-rendezvous-")
        os.close(handle)
        compat.symbol(state, "init_distributed_environment")(
            world_size=1,
            rank=0,
            distributed_init_method=f"file://{path}",
            local_rank=device.index or 0,
            backend="gloo" if device.type == "cpu" else "nccl",
        )
    if not compat.symbol(state, "model_parallel_is_initialized")():
        compat.symbol(state, "ensure_model_parallel_initialized")(1, 1)
