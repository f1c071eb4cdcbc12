"""FLASH_ATTN_MLA: a cap on the splits per captured batch size, and the threshold."""

__all__ = ["TunedFlashAttnMLABackend"]

import logging
from typing import Any

import vllm.v1.attention.backends.mla.flashattn_mla as vllm_flashattn_mla

from mla_tune.vllm.backends.flash_attn_mla import CAP
from mla_tune.vllm.plugin.builder import TunedBuilder
from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.fidelity import seen_argument, verified
from mla_tune.vllm.plugin.replay import Fields
from mla_tune.vllm.plugin.state import once

VllmBackend: Any = vllm_flashattn_mla.FlashAttnMLABackend
VllmBuilder: Any = VllmBackend.get_builder_cls()
VllmImpl: Any = VllmBackend.get_impl_cls()


class TunedFlashAttnMLAMetadataBuilder(TunedBuilder, VllmBuilder):  # type: ignore[misc]
    """The cap goes into both places that use it: the schedule, and the kernel's buffers.

    A graph freezes the size of the buffers while its schedule is computed anew each step, so the
    cap of a captured batch size must be the same at every replay. vLLM takes ``max_num_splits``
    for the batch sizes it captures; beyond those it sets no bound, and ``_cap`` takes its place.
    """

    mla_tune_backend = "FLASH_ATTN_MLA"
    mla_tune_knobs = TunedBuilder.mla_tune_knobs | {"num_kv_splits"}

    max_num_splits: int
    _cap: int | None = None
    _operators_cap = False

    def _start(self) -> None:
        self._vllm_max_num_splits = self.max_num_splits
        attention = self.vllm_config.attention_config
        # Tables were measured against vLLM's own, and more splits take memory in each graph.
        self._operators_cap = getattr(attention, CAP) != getattr(type(attention), CAP)
        if self._operators_cap:
            once(
                logging.INFO,
                f"mla-tune: FLASH_ATTN_MLA keeps the cap of --attention-config.{CAP}="
                f"{getattr(attention, CAP)}; without it tables set caps by batch",
            )
        super()._start()

    def _before(self, choice: Choice) -> None:
        super()._before(choice)
        self._cap = self._cap_of(choice)
        self.max_num_splits = self._vllm_max_num_splits
        if self._cap is not None:
            # On the instance, for this one build: an override would cost every replay a call that
            # passes on, and a bound method kept anywhere would keep the builder alive.
            self._schedule_decode = self._schedule_capped

    def _put_back(self) -> None:
        super()._put_back()
        self.__dict__.pop("_schedule_decode", None)

    def _before_replay(self, choice: Choice) -> Fields:
        cap = self._cap_of(choice)
        return (("max_num_splits", self._vllm_max_num_splits if cap is None else cap),)

    def _cap_of(self, choice: Choice) -> int | None:
        return None if self._operators_cap else choice.plan.number("num_kv_splits")

    def _schedule_capped(self, **kwargs: Any) -> Any:
        return super()._schedule_decode(**kwargs | {"max_num_splits": self._cap})

    def _after(self, metadata: Any, choice: Choice) -> Fields:
        # What was built with, not what is known since: a mixed batch has been built with neither.
        if self._cap is None or metadata.decode is None:
            return ()
        metadata.decode.max_num_splits = self._cap
        return (("mla_tune", (choice, self._deployment)),)


class TunedFlashAttnMLAImpl(VllmImpl):  # type: ignore[misc]
    def forward_mqa(
        self, q: Any, kv_c_and_k_pe_cache: Any, attn_metadata: Any, layer: Any, *args: Any
    ) -> Any:
        def run() -> Any:
            return super(TunedFlashAttnMLAImpl, self).forward_mqa(
                q, kv_c_and_k_pe_cache, attn_metadata, layer, *args
            )

        found = getattr(attn_metadata, "mla_tune", None)
        if found is None or found[0].checked:
            return run()
        choice, deployment = found
        result, seen = seen_argument(
            vllm_flashattn_mla, "flash_attn_varlen_func", "num_splits", run
        )
        verified(choice, "num_kv_splits", choice.plan["num_kv_splits"], seen, deployment.counts)
        return result


class TunedFlashAttnMLABackend(VllmBackend):  # type: ignore[misc]
    """vLLM's backend under its own name, with our builder and impl."""

    @staticmethod
    def get_impl_cls() -> Any:
        return TunedFlashAttnMLAImpl

    @staticmethod
    def get_builder_cls() -> Any:
        return TunedFlashAttnMLAMetadataBuilder
