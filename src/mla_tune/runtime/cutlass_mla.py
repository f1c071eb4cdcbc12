"""CUTLASS_MLA: split counts per batch, with a workspace sized before anything is captured."""

__all__ = ["TunedCutlassMLABackend"]

import os
from typing import Any

import vllm.v1.attention.backends.mla.cutlass_mla as vllm_cutlass_mla

from mla_tune.runtime.builder import TunedBuilder
from mla_tune.runtime.choice import Choice
from mla_tune.runtime.fidelity import seen_argument, verified
from mla_tune.runtime.log import logger
from mla_tune.runtime.replay import Fields

VllmBackend: Any = vllm_cutlass_mla.CutlassMLABackend
VllmBuilder: Any = VllmBackend.get_builder_cls()
VllmImpl: Any = VllmBackend.get_impl_cls()

# The kernel pads to 128 heads and keeps 512 values and a log-sum-exp a head, in float32.
BYTES_PER_ROW_AND_SPLIT = 128 * (512 + 1) * 4
# Above 16 the kernel is reported to hang (vLLM's comment on FORCE_NUM_KV_SPLITS).
MOST_SPLITS = 16


class TunedCutlassMLAMetadataBuilder(TunedBuilder, VllmBuilder):  # type: ignore[misc]
    mla_tune_backend = "CUTLASS_MLA"

    def _start(self) -> None:
        super()._start()
        lookups = self._find_deployment().lookups
        if lookups is None:
            return
        wanted = lookups.splits_wanted()
        planned = self._find_deployment().planned
        wanted += [(batch, choice.num_kv_splits or 1) for (batch, _), choice in planned.items()]
        needed = max(
            (rows * splits * BYTES_PER_ROW_AND_SPLIT for rows, splits in wanted), default=0
        )
        buffer = vllm_cutlass_mla.g_sm100_workspace.get_buf()
        if needed > buffer.shape[0]:
            # Growing later would move the buffer that captured graphs point to. There is no
            # official way to ask for a size.
            logger.info("mla-tune: CUTLASS_MLA workspace %.2f GiB", needed / 2**30)
            buffer.resize_(needed)

    def _after(self, metadata: Any, choice: Choice) -> Fields:
        splits = choice.num_kv_splits
        if splits is None or splits > MOST_SPLITS or os.environ.get("FORCE_NUM_KV_SPLITS"):
            return ()
        return (("mla_tune", (choice, self._deployment)),) if metadata.num_decodes else ()


class TunedCutlassMLAImpl(VllmImpl):  # type: ignore[misc]
    _num_kv_splits: int

    def forward_mqa(
        self, q: Any, kv_c_and_k_pe_cache: Any, attn_metadata: Any, layer: Any, *args: Any
    ) -> Any:
        def run() -> Any:
            return super(TunedCutlassMLAImpl, self).forward_mqa(
                q, kv_c_and_k_pe_cache, attn_metadata, layer, *args
            )

        found = getattr(attn_metadata, "mla_tune", None)
        if found is None:
            return run()
        choice, deployment = found
        engine_wide = self._num_kv_splits
        self._num_kv_splits = choice.num_kv_splits
        try:
            if choice.checked:
                return run()
            result, seen = seen_argument(self, "_sm100_cutlass_mla_decode", "num_kv_splits", run)
        finally:
            self._num_kv_splits = engine_wide
        verified(choice, "num_kv_splits", choice.num_kv_splits, seen, deployment.counts)
        return result


class TunedCutlassMLABackend(VllmBackend):  # type: ignore[misc]
    """vLLM's backend under its own name, with our builder and impl."""

    @staticmethod
    def get_impl_cls() -> Any:
        return TunedCutlassMLAImpl

    @staticmethod
    def get_builder_cls() -> Any:
        return TunedCutlassMLAMetadataBuilder
