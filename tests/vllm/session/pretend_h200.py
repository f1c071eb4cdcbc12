# ruff: noqa: ARG001, ARG003, ARG005
"""A pretend H200 on the CPU: vLLM's real layers, impls and builders over kernels in plain torch.

Everything that Python does is vLLM's own, on the code path that a GPU takes; only the compiled
kernels are replaced, by ones that read the same arguments. Import this before vLLM, in a process
of its own.
"""

__all__ = ["KERNEL_CALLS", "become", "open_session"]

import sys
import types
from typing import Any

import torch

KERNEL_CALLS: list[tuple[str, dict[str, Any]]] = []


def become(major: int = 9) -> None:
    """Give vLLM a CUDA platform of compute capability ``major``.0 and kernels to go with it."""
    _stub_flash_attention()
    _stub_flashmla()
    _stub_tokenspeed()
    import vllm.platforms as platforms
    from vllm.platforms.interface import DeviceCapability, Platform, PlatformEnum

    class Pretend(Platform):
        _enum = PlatformEnum.CUDA
        device_name = "cuda"
        device_type = "cpu"
        dispatch_key = "CPU"
        ray_device_key = "GPU"
        dist_backend = "gloo"
        supported_quantization = []  # noqa: RUF012 - as in vLLM

        @classmethod
        def get_device_capability(cls, device_id=0):
            return DeviceCapability(major, 0)

        @classmethod
        def get_device_name(cls, device_id=0):
            return "Pretend H200"

        @classmethod
        def get_device_total_memory(cls, device_id=0):
            return 141 * 2**30

        @classmethod
        def num_compute_units(cls, device_id=0):
            return 132

        @classmethod
        def is_cuda_alike(cls):
            return True

        @classmethod
        def is_pin_memory_available(cls):
            return False

        @classmethod
        def support_static_graph_mode(cls):
            return True

        @classmethod
        def import_kernels(cls):
            """There are none to import."""

        @classmethod
        def get_device_communicator_cls(cls):
            package = "vllm.distributed.device_communicators"
            return f"{package}.base_device_communicator.DeviceCommunicatorBase"

        @classmethod
        def get_attn_backend_cls(cls, selected_backend, *args, **kwargs):
            """As CUDA's platform does: by the class that was found, not as it is registered."""
            return ".".join(selected_backend.get_class().full_cls_name())

        @classmethod
        def get_mla_prefill_backend_cls(cls, selector_config):
            from vllm.v1.attention.backends.mla.prefill.registry import MLAPrefillBackendEnum

            return MLAPrefillBackendEnum.FLASH_ATTN.get_class()

        @classmethod
        def check_and_update_config(cls, vllm_config):
            vllm_config.parallel_config.worker_cls = "vllm.v1.worker.gpu_worker.Worker"

    platforms._current_platform = Pretend()
    torch.accelerator.empty_cache = lambda: None
    _drop_pinning()
    _stub_cache_ops()
    _stub_streams()


def open_session(setup, *, dtype: torch.dtype = torch.bfloat16):
    """A session of a GPU backend, on this CPU."""
    from mla_tune.registry import vllm_backend
    from mla_tune.vllm import workspace
    from mla_tune.vllm.session import parts as vllm_parts
    from mla_tune.vllm.session.session import VllmSession

    vllm_parts.use_cpu_platform = lambda: None
    vllm_parts.activation_dtype = lambda device: dtype
    workspace.start_workspace(torch.device("cpu"))
    return VllmSession(setup, vllm_parts.build_parts(setup, vllm_backend(setup.backend)))


def pages(blocks: torch.Tensor, table: torch.Tensor, length: int) -> torch.Tensor:
    """The first ``length`` rows of a paged ``[num_blocks, block_size, ...]``."""
    return blocks[table.long()].flatten(0, 1)[:length]


def _attend(query, key, value, scale, causal):
    """``[q, heads, d]`` over ``[k, heads, d]``, aligned to the end; output and log-sum-exp."""
    scores = torch.einsum("qhd,khd->hqk", query.float(), key.float()) * scale
    if causal:
        offset = key.shape[0] - query.shape[0]
        hidden = torch.ones(query.shape[0], key.shape[0]).tril(offset) == 0
        scores = scores.masked_fill(hidden, float("-inf"))
    lse = scores.logsumexp(-1)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), value.float()), lse


def _flash_attn_varlen_func(
    q, k, v, max_seqlen_q, cu_seqlens_q, max_seqlen_k=0, cu_seqlens_k=None, q_v=None,
    seqused_k=None, softmax_scale=None, causal=False, block_table=None,
    return_softmax_lse=False, out=None, fa_version=2, scheduler_metadata=None, num_splits=0,
    output_scale=None, **rest,
):  # fmt: skip
    KERNEL_CALLS.append(
        (
            "flash_attn",
            {
                "fa_version": fa_version,
                "num_splits": num_splits,
                "max_seqlen_k": max_seqlen_k,
                "scheduler_metadata": None
                if scheduler_metadata is None
                else scheduler_metadata.tolist(),
                "paged": block_table is not None,
            },
        )
    )
    width = v.shape[-1]
    result = torch.full((q.shape[0], q.shape[1], width), float("nan"), dtype=q.dtype)
    lse = torch.full((q.shape[1], q.shape[0]), float("nan"))
    for index in range(cu_seqlens_q.shape[0] - 1):
        rows = slice(int(cu_seqlens_q[index]), int(cu_seqlens_q[index + 1]))
        if block_table is not None:
            length = int(seqused_k[index])
            table = block_table[index, : -(-length // k.shape[1])]
            keys, values = pages(k, table, length), pages(v, table, length)
            keys = torch.cat([keys, values], -1).expand(-1, q.shape[1], -1)
            values = values.expand(-1, q.shape[1], -1)
            query = torch.cat([q[rows], q_v[rows]], -1)
        else:
            span = slice(int(cu_seqlens_k[index]), int(cu_seqlens_k[index + 1]))
            keys, values, query = k[span], v[span], q[rows]
        if keys.shape[0] == 0:
            result[rows], lse[:, rows] = 0.0, float("-inf")
            continue
        attended, sums = _attend(query, keys, values, softmax_scale, causal)
        result[rows], lse[:, rows] = attended.to(q.dtype), sums
    if out is not None:
        out.copy_(result)
        result = out
    return (result, lse) if return_softmax_lse else result


def _get_scheduler_metadata(batch_size, max_seqlen_k, cache_seqlens, num_splits=0, **rest):
    """As long as the real one, and telling what it was made from."""
    schedule = torch.zeros(1 + -(-batch_size // 4) * 16, dtype=torch.int32)
    schedule[1] = max_seqlen_k
    schedule[2] = num_splits
    schedule[3 : 3 + batch_size] = cache_seqlens
    return schedule


def _stub_flash_attention() -> None:
    package = types.ModuleType("vllm.vllm_flash_attn")
    package.__path__ = []
    interface = types.ModuleType("vllm.vllm_flash_attn.flash_attn_interface")
    for module in (package, interface):
        module.flash_attn_varlen_func = _flash_attn_varlen_func
        module.get_scheduler_metadata = _get_scheduler_metadata
        module.compile_flash_attn_varlen_func_from_specs = None
        module.is_fa_version_supported = lambda version: version in (2, 3)
        module.fa_version_unsupported_reason = lambda version: f"{version} is not pretended"
    sys.modules["vllm.vllm_flash_attn"] = package
    sys.modules["vllm.vllm_flash_attn.flash_attn_interface"] = interface


def _flash_mla_with_kvcache(
    q, k_cache, block_table, cache_seqlens, head_dim_v, tile_scheduler_metadata,
    softmax_scale, causal=False, is_fp8_kvcache=False, indices=None, **rest,
):  # fmt: skip
    meta = tile_scheduler_metadata
    KERNEL_CALLS.append(("flashmla", {"scheduled": meta.have_initialized}))
    meta.have_initialized = True
    batch, query_len, heads, _ = q.shape
    out = torch.empty(batch, query_len, heads, head_dim_v, dtype=q.dtype)
    lse = torch.empty(batch, heads, query_len)
    for index in range(batch):
        length = int(cache_seqlens[index])
        table = block_table[index, : -(-length // k_cache.shape[1])]
        keys = pages(k_cache, table, length).to(q.dtype).expand(-1, heads, -1)
        out[index], lse[index] = _attend(
            q[index], keys, keys[..., :head_dim_v], softmax_scale, causal
        )
    return out, lse


def _stub_flashmla() -> None:
    import dataclasses

    extension = types.ModuleType("vllm._flashmla_C")
    sys.modules["vllm._flashmla_C"] = extension
    sys.modules["vllm._flashmla_extension_C"] = types.ModuleType("vllm._flashmla_extension_C")
    interface = types.ModuleType("vllm.third_party.flashmla.flash_mla_interface")

    @dataclasses.dataclass
    class FlashMLASchedMeta:
        have_initialized: bool = False
        tile_scheduler_metadata: torch.Tensor | None = None
        num_splits: torch.Tensor | None = None

    def sparse_forward(q, kv, indices, sm_scale, d_v=512, out=None, **rest):
        KERNEL_CALLS.append(("flashmla_sparse", {}))
        if out is None:
            out = torch.empty(q.shape[0], q.shape[1], d_v, dtype=q.dtype)
        lse = torch.zeros(q.shape[0], q.shape[1])
        for row in range(q.shape[0]):
            chosen = indices[row, 0]
            keys = kv[chosen[chosen >= 0].long(), 0].unsqueeze(1).expand(-1, q.shape[1], -1)
            attended, _ = _attend(q[row : row + 1], keys, keys[..., :d_v], sm_scale, False)
            out[row] = attended[0].to(q.dtype)
        return out, lse, lse

    interface.FlashMLASchedMeta = FlashMLASchedMeta
    interface.get_mla_metadata = lambda *args, **kwargs: (FlashMLASchedMeta(), None)
    interface.flash_mla_with_kvcache = _flash_mla_with_kvcache
    interface.flash_mla_sparse_fwd = sparse_forward
    for name in ("flash_attn_varlen_func", "flash_attn_varlen_kvpacked_func",
                 "flash_attn_varlen_qkvpacked_func"):  # fmt: skip
        setattr(interface, name, None)
    sys.modules["vllm.third_party.flashmla.flash_mla_interface"] = interface


def _stub_tokenspeed() -> None:
    """Its prefill kernels: vLLM compiles two of them when their backend is made, 20 s each."""
    package = types.ModuleType("tokenspeed_mla")
    package.tokenspeed_mla_prefill = None
    package.warmup_compile_prefill = lambda **arguments: None
    sys.modules["tokenspeed_mla"] = package


def _drop_pinning() -> None:
    """Pinned memory needs a driver."""

    def unpinned(function):
        def make(*args, pin_memory=False, device=None, **kwargs):
            return function(*args, device="cpu" if device == "cuda" else device, **kwargs)

        return make

    for name in ("empty", "zeros", "tensor"):
        setattr(torch, name, unpinned(getattr(torch, name)))
    torch.Tensor.pin_memory = lambda self: self


class _Stream:
    """Everything runs in order anyway."""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        return None

    def record(self, stream):
        self.recorded = stream

    def wait_event(self, event):
        assert event.recorded is not None

    def wait_stream(self, stream):
        assert stream is not None


def _stub_streams() -> None:
    try:
        from vllm.v1.attention.backends.mla import index_group
    except ImportError:  # before 0.32
        return
    index_group._create_side_stream = lambda device: _Stream()
    index_group._create_event = _Stream
    index_group.current_stream = _Stream


def _stub_cache_ops() -> None:
    """The operators around attention: writing and gathering the cache, merging, joining."""
    import vllm._custom_ops as ops

    def gather(src_cache, dst, block_table, cu_seq_lens, token_to_seq, num_tokens,
               kv_cache_dtype, scale, seq_starts=None, **rest):  # fmt: skip
        for index in range(cu_seq_lens.shape[0] - 1):
            first, last = int(cu_seq_lens[index]), int(cu_seq_lens[index + 1])
            start = 0 if seq_starts is None else int(seq_starts[index])
            end = start + last - first
            table = block_table[index, : -(-end // src_cache.shape[1])]
            dst[first:last] = pages(src_cache, table, end)[start:].to(dst.dtype)

    def store(kv_c, k_pe, kv_cache, slot_mapping, kv_cache_dtype, scale, **rest):
        kv_cache.view(-1, kv_cache.shape[-1])[slot_mapping] = torch.cat([kv_c, k_pe], -1)

    def merge(output, prefix_output, prefix_lse, suffix_output, suffix_lse, output_lse=None,
              prefill_tokens_with_context=None, output_scale=None):  # fmt: skip
        total = torch.logaddexp(prefix_lse, suffix_lse)
        first = (prefix_lse - total).exp().T.unsqueeze(-1)
        second = (suffix_lse - total).exp().T.unsqueeze(-1)
        merged = prefix_output.float() * first + suffix_output.float() * second
        count = output.shape[0] if prefill_tokens_with_context is None else int(
            prefill_tokens_with_context
        )  # fmt: skip
        merged[count:] = suffix_output[count:].float()
        output.copy_(merged)
        if output_lse is not None:
            output_lse.copy_(total)

    def join(ql_nope, q_pe, out):
        out[:, : q_pe.shape[1]] = torch.cat([ql_nope, q_pe], -1)

    for name in vars(ops).copy():
        if name.startswith("cutlass_") and "support" in name:
            setattr(ops, name, lambda *args: False)

    def cutlass_decode(out, lse, q_nope, q_pe, kv_cache, seq_lens, page_table, workspace,
                       scale, num_kv_splits):  # fmt: skip
        KERNEL_CALLS.append(("cutlass", {"num_splits": num_kv_splits}))
        heads, rank = q_nope.shape[1:]
        for index, length in enumerate(seq_lens.tolist()):
            table = page_table[index, : -(-length // kv_cache.shape[1])]
            keys = pages(kv_cache, table, length).unsqueeze(1).expand(-1, heads, -1)
            query = torch.cat([q_nope[index], q_pe[index]], -1).unsqueeze(0)
            attended, _ = _attend(query, keys, keys[..., :rank], scale, False)
            out[index, :heads] = attended[0].to(out.dtype)

    ops.sm100_cutlass_mla_decode = cutlass_decode
    ops.sm100_cutlass_mla_get_workspace_size = lambda *args, **kwargs: 1
    ops.gather_and_maybe_dequant_cache = gather
    ops.merge_attn_states = merge
    ops.concat_and_cache_mla = store
    ops.concat_mla_q = join
