"""FLASHINFER_MLA: the threshold and the prefill backend; it has no split count to set."""

__all__ = ["TunedFlashInferMLABackend"]

from typing import Any

from vllm.v1.attention.backends.mla.flashinfer_mla import FlashInferMLABackend as VllmBackend

from mla_tune.vllm.plugin.at_load import ReservesAtLoad
from mla_tune.vllm.plugin.builder import TunedBuilder

VllmBuilder: Any = VllmBackend.get_builder_cls()
VllmImpl: Any = VllmBackend.get_impl_cls()


class TunedFlashInferMLAMetadataBuilder(TunedBuilder, VllmBuilder):  # type: ignore[misc]
    mla_tune_backend = "FLASHINFER_MLA"


class TunedFlashInferMLAImpl(ReservesAtLoad, VllmImpl):  # type: ignore[misc]
    mla_tune_backend = "FLASHINFER_MLA"


class TunedFlashInferMLABackend(VllmBackend):  # type: ignore[misc]
    """vLLM's backend under its own name, with our builder and impl."""

    @staticmethod
    def get_impl_cls() -> Any:
        return TunedFlashInferMLAImpl

    @staticmethod
    def get_builder_cls() -> Any:
        return TunedFlashInferMLAMetadataBuilder
