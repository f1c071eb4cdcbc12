"""FLASHMLA: the threshold and the prefill backend; it has no split count to set."""

__all__ = ["TunedFlashMLABackend"]

from typing import Any

from vllm.v1.attention.backends.mla.flashmla import FlashMLABackend as VllmBackend

from mla_tune.vllm.plugin.builder import TunedBuilder

VllmBuilder: Any = VllmBackend.get_builder_cls()


class TunedFlashMLAMetadataBuilder(TunedBuilder, VllmBuilder):  # type: ignore[misc]
    mla_tune_backend = "FLASHMLA"


class TunedFlashMLABackend(VllmBackend):  # type: ignore[misc]
    """vLLM's backend under its own name, with our builder."""

    @staticmethod
    def get_builder_cls() -> Any:
        return TunedFlashMLAMetadataBuilder
