"""TOKENSPEED_MLA: the threshold and the prefill backend; it has no split count to set."""

__all__ = ["TunedTokenspeedMLABackend"]

from typing import Any

from vllm.v1.attention.backends.mla.tokenspeed_mla import TokenspeedMLABackend as VllmBackend

from mla_tune.vllm.plugin.at_load import ReservesAtLoad
from mla_tune.vllm.plugin.builder import TunedBuilder

VllmBuilder: Any = VllmBackend.get_builder_cls()
VllmImpl: Any = VllmBackend.get_impl_cls()


class TunedTokenspeedMLAMetadataBuilder(TunedBuilder, VllmBuilder):  # type: ignore[misc]
    mla_tune_backend = "TOKENSPEED_MLA"


class TunedTokenspeedMLAImpl(ReservesAtLoad, VllmImpl):  # type: ignore[misc]
    mla_tune_backend = "TOKENSPEED_MLA"


class TunedTokenspeedMLABackend(VllmBackend):  # type: ignore[misc]
    """vLLM's backend under its own name, with our builder and impl."""

    @staticmethod
    def get_impl_cls() -> Any:
        return TunedTokenspeedMLAImpl

    @staticmethod
    def get_builder_cls() -> Any:
        return TunedTokenspeedMLAMetadataBuilder
