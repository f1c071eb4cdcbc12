"""FLASHINFER_MLA: which of FlashInfer's decode kernels runs, for each batch, from vLLM 0.32 on."""

__all__ = ["TunedFlashInferMLABackend"]

from typing import Any

import vllm.v1.attention.backends.mla.flashinfer_mla as vllm_flashinfer_mla

from mla_tune.vllm.backends.flashinfer_mla import (
    AUTO,
    BACKEND,
    CUTE_DSL,
    CUTE_DSL_ROWS,
    KNOB,
    TunedDecode,
    has_both,
    most_partial_bytes,
)
from mla_tune.vllm.plugin.at_load import ReservesAtLoad
from mla_tune.vllm.plugin.builder import TunedBuilder
from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.fidelity import verified
from mla_tune.vllm.plugin.fields import Fields
from mla_tune.vllm.plugin.subclass import tuned_backend

VllmBackend: Any = vllm_flashinfer_mla.FlashInferMLABackend
VllmBuilder: Any = VllmBackend.get_builder_cls()
VllmImpl: Any = VllmBackend.get_impl_cls()

# Of a step's metadata: what the impl sets its kernel for.
FIELD = "mla_tune_decode_kernel"
DECODE = TunedDecode.of_vllm()


class TunedFlashInferMLAMetadataBuilder(TunedBuilder, VllmBuilder):  # type: ignore[misc]
    mla_tune_backend = BACKEND.name
    mla_tune_knobs = TunedBuilder.mla_tune_knobs | ({KNOB} if DECODE is not None else frozenset())

    _is_open = False

    def note_vllms_own(self) -> None:
        """Whether vLLM leaves the kernel to FlashInfer, which has both for this layer.

        Under decode context parallelism vLLM names cute-dsl.
        """
        dims, parallel = self.mla_dims, self.vllm_config.parallel_config
        self._is_open = (
            DECODE is not None
            and parallel.decode_context_parallel_size == 1
            and has_both(self.num_heads, dims.kv_lora_rank, dims.qk_rope_head_dim)
        )

    def metadata_fields(self, metadata: Any, choice: Choice, built_for: Choice) -> Fields:
        del built_for
        kernel = choice.plan.text(KNOB)
        if kernel in (None, AUTO) or not metadata.num_decodes or not self._is_open:
            return ()
        if kernel == CUTE_DSL and not self._has_room(metadata):
            self._counts.capped += 1
            return ()
        return ((FIELD, (choice, self._counts)),)

    def _has_room(self, metadata: Any) -> bool:
        """Whether cute-dsl takes the batch; it raises where it does not.

        Its partial results have to fit vLLM's workspace, and its pages to come in whole tiles.
        """
        decode, block_size = metadata.decode, self.kv_cache_spec.block_size
        needed = most_partial_bytes(
            metadata.num_decodes,
            decode.max_query_len,
            metadata.num_decode_tokens,
            num_heads=self.num_heads,
            kv_lora_rank=self.mla_dims.kv_lora_rank,
            sm_count=vllm_flashinfer_mla.get_device_sm_count(self.device),
        )
        room: int = vllm_flashinfer_mla.FLASHINFER_MLA_WORKSPACE_BUFFER_SIZE
        tokens: int = decode.block_table.shape[-1] * block_size
        return needed <= room and tokens % CUTE_DSL_ROWS == 0


class TunedFlashInferMLAImpl(ReservesAtLoad, VllmImpl):  # type: ignore[misc]
    mla_tune_backend = BACKEND.name

    def forward_mqa(self, q: Any, kv_c_and_k_pe_cache: Any, attn_metadata: Any, *args: Any) -> Any:
        arguments = (q, kv_c_and_k_pe_cache, attn_metadata, *args)
        tuned = getattr(attn_metadata, FIELD, None)
        if tuned is None or DECODE is None:
            return super().forward_mqa(*arguments)
        choice, counts = tuned
        kernel = choice.plan[KNOB]
        with DECODE.choosing(kernel):
            if choice.checked:
                return super().forward_mqa(*arguments)
            with DECODE.observed() as seen:
                result = super().forward_mqa(*arguments)
        verified(choice, {KNOB: kernel}, {KNOB: seen[0]} if seen else {}, counts)
        return result


TunedFlashInferMLABackend = tuned_backend(
    VllmBackend, TunedFlashInferMLAMetadataBuilder, TunedFlashInferMLAImpl
)
