"""FLASH_ATTN_MLA: a cap on the splits per captured batch size, and the threshold."""

__all__ = ["TunedFlashAttnMLABackend"]

import functools
import logging
from typing import Any

import vllm.v1.attention.backends.mla.flashattn_mla as vllm_flashattn_mla

from mla_tune.vllm.backends.flash_attn_mla import BACKEND, CAP, LAUNCH
from mla_tune.vllm.plugin.builder import TunedBuilder
from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.fidelity import ChecksSplits, checked_by_impl
from mla_tune.vllm.plugin.fields import Fields
from mla_tune.vllm.plugin.state import once
from mla_tune.vllm.plugin.subclass import tuned_backend

VllmBackend: Any = vllm_flashattn_mla.FlashAttnMLABackend
VllmBuilder: Any = VllmBackend.get_builder_cls()
VllmImpl: Any = VllmBackend.get_impl_cls()


class TunedFlashAttnMLAMetadataBuilder(TunedBuilder, VllmBuilder):  # type: ignore[misc]
    """The cap goes into both places that use it: the schedule, and the kernel's buffers.

    A graph freezes the size of the buffers while its schedule is computed anew each step, so the
    cap of a captured batch size must be the same at every replay. vLLM takes ``max_num_splits``
    for the batch sizes it captures; beyond those it sets no bound, and ours is set in both places
    after it.
    """

    mla_tune_backend = BACKEND.name
    mla_tune_knobs = TunedBuilder.mla_tune_knobs | {"num_kv_splits"}

    max_num_splits: int
    _operators_cap = False

    def note_vllms_own(self) -> None:
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

    def fields_while_building(self, choice: Choice) -> Fields:
        own, cap = ("max_num_splits", self._vllm_max_num_splits), self._cap_of(choice)
        if cap is None:
            return (own,)
        # For this one build: a method of this class would cost every replay a call that passes on.
        return own, ("_schedule_decode", functools.partial(self._schedule_capped, cap))

    def fields_while_replaying(self, choice: Choice) -> Fields:
        cap = self._cap_of(choice)
        return (("max_num_splits", self._vllm_max_num_splits if cap is None else cap),)

    def metadata_fields(self, metadata: Any, choice: Choice, built_for: Choice) -> Fields:
        # The schedule has the cap that the batch was built for: none in a mixed batch.
        cap = self._cap_of(built_for)
        if cap is None or metadata.decode is None:
            return ()
        metadata.decode.max_num_splits = cap
        return checked_by_impl(choice, self._counts)

    def _cap_of(self, choice: Choice) -> int | None:
        return None if self._operators_cap else choice.plan.number("num_kv_splits")

    def _schedule_capped(self, cap: int, **kwargs: Any) -> Any:
        return super()._schedule_decode(**kwargs | {"max_num_splits": cap})


class TunedFlashAttnMLAImpl(ChecksSplits, VllmImpl):  # type: ignore[misc]
    def split_argument(self) -> tuple[Any, str, str]:
        return vllm_flashattn_mla, *LAUNCH


TunedFlashAttnMLABackend = tuned_backend(
    VllmBackend, TunedFlashAttnMLAMetadataBuilder, TunedFlashAttnMLAImpl
)
