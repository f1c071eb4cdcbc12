"""A prefill backend that hands each batch to the implementation the table names for it.

Registered in place of FLASH_ATTN, which vLLM prefers on compute capability 9 and 10, and by its
name: what vLLM derives from the name engine-wide (query dtype, fused output) stays as it was.
"""

__all__ = ["TunedFlashAttnPrefillBackend"]

import logging
from collections.abc import Iterable
from typing import Any

from vllm.v1.attention.backends.mla.prefill.flash_attn import (
    FlashAttnPrefillBackend as VllmPrefillBackend,
)
from vllm.v1.attention.backends.mla.prefill.registry import MLAPrefillBackendEnum

from mla_tune.runtime.log import logger, once

# A table's names (those of vLLM's attention benchmark): registry member, FlashAttention version.
NAMES: dict[str, tuple[str, int | None]] = {
    "fa2": ("FLASH_ATTN", 2),
    "fa3": ("FLASH_ATTN", 3),
    "fa4": ("FLASH_ATTN", 4),
    "flashinfer": ("FLASHINFER", None),
    "trtllm": ("TRTLLM_RAGGED", None),
    "tokenspeed": ("TOKENSPEED_MLA", None),
}


class TunedFlashAttnPrefillBackend(VllmPrefillBackend):  # type: ignore[misc]
    """vLLM's FLASH_ATTN, unless a batch has been given something else."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._alternatives: dict[str, Any] = {}
        self._name: str | None = None
        self._active: Any = None

    def prepare_alternatives(self, names: Iterable[str]) -> None:
        """Make the implementations that batches will ask for; one that cannot run is left out."""
        if self.vllm_config.attention_config.mla_prefill_backend is not None:
            return  # the operator has decided
        own = f"fa{self.vllm_flash_attn_version}"
        for name in sorted(set(names) - {own}):
            try:
                self._alternatives[name] = self._made(name)
            except Exception as error:
                once(logging.WARNING, f"mla-tune: prefill backend {name} does not run: {error}")
        if self._alternatives:
            told = ", ".join(self._alternatives)
            logger.info("mla-tune: prefill by batch: %s beside vLLM's own %s", told, own)

    def _made(self, name: str) -> Any:
        from vllm.config import set_current_vllm_config

        member, version = NAMES[name]
        cls: Any = VllmPrefillBackend if version else MLAPrefillBackendEnum[member].get_class()
        config = self.vllm_config.attention_config
        # Only while the instance is made: engine-wide, another version would also turn off the
        # decode schedule of FLASH_ATTN_MLA on compute capability 9.
        before = config.flash_attn_version
        config.flash_attn_version = version or before
        try:
            with set_current_vllm_config(self.vllm_config):
                return cls(
                    num_heads=self.num_heads,
                    scale=self.scale,
                    kv_lora_rank=self.kv_lora_rank,
                    qk_nope_head_dim=self.qk_nope_head_dim,
                    qk_rope_head_dim=self.qk_rope_head_dim,
                    v_head_dim=self.v_head_dim,
                    vllm_config=self.vllm_config,
                )
        finally:
            config.flash_attn_version = before

    def choose(self, name: str | None) -> None:
        """Say which implementation the next batch is for; None or an unknown name is vLLM's own."""
        self._name = name

    def prepare_metadata(self, prefill_metadata: Any) -> None:
        super().prepare_metadata(prefill_metadata)
        self._active = self._alternatives.get(self._name) if self._name else None
        if self._active is not None:
            self._active.prepare_metadata(prefill_metadata)

    def supports_out(self) -> bool:
        # From 0.32. A caller may hand over `out` only if whatever runs writes into it.
        own = bool(super().supports_out())
        return own and all(each.supports_out() for each in self._alternatives.values())

    def run_prefill_new_tokens(self, *args: Any, **kwargs: Any) -> Any:
        # Fused quantised output is an engine-wide promise of vLLM's own choice.
        if self._active is None or kwargs.get("output_scale") is not None:
            return super().run_prefill_new_tokens(*args, **kwargs)
        return self._active.run_prefill_new_tokens(*args, **kwargs)

    def run_prefill_context_chunk(self, *args: Any, **kwargs: Any) -> Any:
        if self._active is None:
            return super().run_prefill_context_chunk(*args, **kwargs)
        return self._active.run_prefill_context_chunk(*args, **kwargs)
