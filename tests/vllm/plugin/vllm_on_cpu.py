"""A real MLA layer and builder of the installed vLLM, on the CPU, found through its registry."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cpu_builders import flash_attention_stand_ins
from mla_tune.registry import vllm_backend
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape
from mla_tune.vllm.observe import calls_of, set_for_now
from mla_tune.vllm.session.config import current_config, use_cpu_platform
from mla_tune.vllm.session.parts import PREFIX, build_parts
from tabled_engine import MODEL

use_cpu_platform()

FLASH_ATTN_MODULES = (
    "vllm.v1.attention.backends.mla.flashattn_mla",
    "mla_tune.vllm.plugin.flash_attn_mla",
)
BLOCK_SIZE = 16
MAX_MODEL_LEN = 4096


@dataclass
class Engine:
    config: Any
    layer: Any
    builder: Any

    @property
    def deployment(self) -> Any:
        return self.builder.step_policy.deployment

    def batch(self, spec: str, longest: int | None = None) -> Any:
        """What a model runner hands a builder for ``spec``; ``longest`` as in a capture."""
        from vllm.v1.attention.backend import CommonAttentionMetadata

        requests = BatchShape.parse(spec).requests()
        query_lens = torch.tensor([query for query, _ in requests], dtype=torch.int32)
        kv_lens = torch.tensor([kv for _, kv in requests], dtype=torch.int32)
        start = torch.zeros(len(requests) + 1, dtype=torch.int32)
        start[1:] = query_lens.cumsum(0)
        blocks = -(-int(kv_lens.max()) // BLOCK_SIZE)
        table = 1 + torch.arange(len(requests) * blocks, dtype=torch.int32).view(-1, blocks)
        slots = [
            table[row].long()[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE
            for row, (query, kv) in enumerate(requests)
            for position in range(kv - query, kv)
        ]
        return CommonAttentionMetadata(
            query_start_loc=start,
            query_start_loc_cpu=start,
            seq_lens=kv_lens,
            seq_lens_cpu_upper_bound=kv_lens,
            num_reqs=len(requests),
            num_actual_tokens=int(start[-1]),
            max_query_len=int(query_lens.max()),
            max_seq_len=longest or int(kv_lens.max()),
            block_table_tensor=table,
            slot_mapping=torch.stack(slots),
            dcp_local_seq_lens=-(-kv_lens // self.builder.dcp_world_size),
        )

    def forward(self, spec: str, metadata: Any) -> torch.Tensor:
        """Run the layer on the batch of ``spec``: the same inputs every time."""
        shape = BatchShape.parse(spec)
        generator = torch.Generator().manual_seed(7)
        tokens, blocks = (
            shape.num_query_tokens,
            1 + shape.num_requests * (-(-shape.max_kv_len // BLOCK_SIZE)),
        )
        draw = lambda *size: torch.randn(size, generator=generator).half()  # noqa: E731
        cache = draw(blocks, BLOCK_SIZE, MODEL.latent_dim)
        # The new tokens as the cache holds them: both paths see the same values.
        new = cache.view(-1, MODEL.latent_dim)[metadata.slot_mapping]
        output = torch.zeros(tokens, MODEL.num_q_heads * MODEL.v_head_dim, dtype=torch.float16)
        with torch.no_grad(), current_config(self.config):
            self.layer.forward_impl(
                draw(tokens, MODEL.num_q_heads, MODEL.qk_head_dim),
                new[:, : MODEL.kv_lora_rank].contiguous(),
                new[:, None, MODEL.kv_lora_rank :].contiguous(),
                cache,
                metadata,
                output=output,
            )
        return output


def start(
    backend: str = "TRITON_MLA",
    *,
    captures: tuple[int, ...] = (),
    tensor_parallel: int = 1,
    context_parallel: int = 1,
    **config: Any,
) -> Engine:
    """Build the TRITON_MLA layer and a builder of ``backend``, as the registry has them now.

    ``captures`` are the batch sizes of the decode graphs the engine says it will capture; the
    rest goes into the compilation config. The builder is one of ``tensor_parallel`` ranks, of which
    ``context_parallel`` share the KV cache of each request.
    """
    from vllm.config import CUDAGraphMode
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    setup = Setup(
        backend="TRITON_MLA",
        model=MODEL,
        max_model_len=MAX_MODEL_LEN,
        max_num_requests=64,
        max_num_query_tokens=512,
    )
    parts = build_parts(setup, vllm_backend(setup.backend))
    compilation = parts.vllm_config.compilation_config
    if captures:
        compilation.cudagraph_mode = CUDAGraphMode.FULL_AND_PIECEWISE
        compilation.cudagraph_capture_sizes = list(captures)
    for name, value in config.items():
        setattr(compilation, name, value)
    parts.vllm_config.parallel_config.tensor_parallel_size = tensor_parallel
    parts.vllm_config.parallel_config.decode_context_parallel_size = context_parallel
    spec = parts.layer.get_kv_cache_spec(parts.vllm_config)
    # The layer is TRITON_MLA's; vLLM gives each backend blocks that its kernels take.
    spec = replace(spec, block_size=vllm_backend(backend).blocks.own)
    builder_cls = AttentionBackendEnum[backend].get_class().get_builder_cls()
    with current_config(parts.vllm_config), _one_of(context_parallel, parts.layer):
        builder = builder_cls(spec, [PREFIX], parts.vllm_config, torch.device("cpu"))
    return Engine(parts.vllm_config, parts.layer, builder)


def load_model(backend: str, *, kv_cache_dtype: str = "auto", **config: Any) -> tuple[Engine, Any]:
    """Load a model with the plugin as vLLM does: the impl first, the builder later.

    Returns an engine with the builder of ``backend``, and the impl. ``config`` is as in `start`.
    """
    from mla_tune.vllm.plugin import register

    register()
    impl = impl_of(registry()[backend].get_class().get_impl_cls(), kv_cache_dtype)
    return start(backend, **config), impl


def impl_of(impl_cls: Any, kv_cache_dtype: str = "auto") -> Any:
    """An impl of a layer as `start` builds it."""
    engine = start()
    with current_config(engine.config):
        return impl_cls(
            num_heads=MODEL.num_q_heads,
            head_size=MODEL.latent_dim,
            scale=1.0,
            num_kv_heads=1,
            alibi_slopes=None,
            sliding_window=None,
            kv_cache_dtype=kv_cache_dtype,
            logits_soft_cap=None,
            attn_type="decoder",
            kv_sharing_target_layer_name=None,
            q_lora_rank=None,
            kv_lora_rank=MODEL.kv_lora_rank,
            qk_nope_head_dim=MODEL.qk_nope_head_dim,
            qk_rope_head_dim=MODEL.qk_rope_head_dim,
            qk_head_dim=MODEL.qk_head_dim,
            v_head_dim=MODEL.v_head_dim,
            kv_b_proj=engine.layer.impl.kv_b_proj,
            indexer=None,
        )


@contextmanager
def _one_of(ranks: int, layer: Any) -> Iterator[None]:
    """Have vLLM take this process for one of ``ranks`` that share the KV cache of a request."""
    if ranks == 1:
        yield
        return
    import vllm.model_executor.layers.attention.mla_attention as mla_attention

    class Manager(mla_attention.MLADCPManager):  # type: ignore[misc]
        def __init__(self) -> None:
            """Without the other ranks."""

        def init_kv_gather(self, *_: Any) -> None:
            """Only prefills gather."""

    layer.dcp_manager = Manager()
    group = SimpleNamespace(world_size=ranks, rank_in_group=0)
    with set_for_now(mla_attention, "get_dcp_group", lambda: group):
        yield


def leave_out_flash_attention(patch: pytest.MonkeyPatch) -> list[int]:
    """Let FLASH_ATTN_MLA's module be imported anew, without its two CUDA functions.

    Returns the caps that the scheduler is called with from here on.
    """
    import vllm.v1.attention.backends.fa_utils as fa_utils

    caps: list[int] = []
    for name, stand_in in flash_attention_stand_ins(caps).items():
        patch.setattr(fa_utils, name, stand_in, raising=False)
    for name in FLASH_ATTN_MODULES:
        patch.delitem(sys.modules, name, raising=False)
    return caps


def with_workspace(monkeypatch: pytest.MonkeyPatch, **slots: int) -> Any:
    """vLLM's workspace manager, which wants an accelerator only to empty its cache."""
    from vllm.v1.worker import workspace

    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    monkeypatch.setattr(workspace, "_manager", None)
    workspace.init_workspace_manager(torch.device("cpu"), **slots)
    return workspace.current_workspace_manager()


def registry() -> Any:
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    return AttentionBackendEnum


def load_plugins() -> None:
    """As each of vLLM's processes does, through the installed entry point."""
    import vllm.plugins

    vllm.plugins.plugins_loaded = False
    vllm.plugins.load_general_plugins()


def splits_reaching_the_kernel(engine: Engine, spec: str, metadata: Any) -> int:
    from vllm.v1.attention.backends.mla import triton_mla

    with calls_of(triton_mla, "decode_attention_fwd", "num_kv_splits") as seen:
        engine.forward(spec, metadata)
    return int(seen[0])
