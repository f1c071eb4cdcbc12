"""TOKENSPEED_MLA: a floor under its kernel's splits for each batch, from vLLM 0.33 on."""

__all__ = ["TunedTokenspeedMLABackend"]

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import vllm.v1.attention.backends.mla.tokenspeed_mla as vllm_tokenspeed_mla

from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.table.loading import LoadedTable
from mla_tune.vllm import compat, workspace
from mla_tune.vllm.backends.tokenspeed_mla import (
    ATTRIBUTE,
    BACKEND,
    FLOOR,
    LAUNCH,
    MOST_BYTES,
    PACKAGE,
    ROWS,
    partial_bytes,
)
from mla_tune.vllm.observe import calls_of, set_for_now
from mla_tune.vllm.plugin.at_load import ReservesAtLoad
from mla_tune.vllm.plugin.builder import TunedBuilder
from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.fidelity import verified
from mla_tune.vllm.plugin.fields import Fields
from mla_tune.vllm.plugin.state import once
from mla_tune.vllm.plugin.subclass import tuned_backend

VllmBackend: Any = vllm_tokenspeed_mla.TokenspeedMLABackend
VllmBuilder: Any = VllmBackend.get_builder_cls()
VllmImpl: Any = VllmBackend.get_impl_cls()

KNOB = "min_split_kv"
# Of a step's metadata: what the impl sets its floor for.
FIELD = "mla_tune_floor"


def _has_floor() -> bool:
    """Whether vLLM has a floor, and says when the workspace for it can still be reserved.

    0.32 has the one without the other.
    """
    settings = dataclasses.fields(compat.symbol("vllm.config", "AttentionConfig"))
    is_there = any(setting.name == FLOOR for setting in settings)
    return is_there and hasattr(VllmImpl, "reserve_workspace")


class TunedTokenspeedMLAMetadataBuilder(TunedBuilder, VllmBuilder):  # type: ignore[misc]
    mla_tune_backend = BACKEND.name
    mla_tune_knobs = TunedBuilder.mla_tune_knobs | ({KNOB} if _has_floor() else frozenset())

    def metadata_fields(self, metadata: Any, choice: Choice, built_for: Choice) -> Fields:
        del built_for
        # An operator's own floor stays.
        configured = getattr(self.vllm_config.attention_config, FLOOR, 1)
        if KNOB not in choice.plan or not metadata.num_decodes or configured != 1:
            return ()
        return ((FIELD, (choice, self._counts)),)


class TunedTokenspeedMLAImpl(ReservesAtLoad, VllmImpl):  # type: ignore[misc]
    mla_tune_backend = BACKEND.name

    # Bytes of partial results that are there for floors of ours; all layers have the same.
    _room: ClassVar[int] = 0

    def _reserve_at_load(self, vllm_config: Any, tables: Mapping[str, LoadedTable]) -> None:
        super()._reserve_at_load(vllm_config, tables)
        entries = (entry for loaded in tables.values() for entry in loaded.table.entries)
        type(self)._room = min(MOST_BYTES, max(self._wanted(entries), default=0))

    def _wanted(self, entries: Iterable[Entry]) -> Iterable[int]:
        for entry in entries:
            floor = entry.plan.number(KNOB)
            if floor is not None:
                cases = Workload.parse(entry.shape).cases
                yield self._bytes(max(case.shape.num_query_tokens for case in cases), floor)

    def _bytes(self, rows: int, floor: int) -> int:
        heads, rank = self.num_heads, self.kv_lora_rank
        return partial_bytes(rows, floor, num_heads=heads, kv_lora_rank=rank)

    def reserve_workspace(self) -> None:
        """While memory is profiled: the buffer must not grow under graphs that point to it."""
        super().reserve_workspace()
        found = workspace.manager()
        if found is not None and self._room:
            import torch

            gib = self._room / 2**30
            once(logging.INFO, f"mla-tune: TOKENSPEED_MLA workspace {gib:.2f} GiB")
            found.get_simultaneous(((self._room,), torch.int8))

    def forward_mqa(self, q: Any, kv_c_and_k_pe_cache: Any, attn_metadata: Any, *args: Any) -> Any:
        arguments = (q, kv_c_and_k_pe_cache, attn_metadata, *args)
        tuned = getattr(attn_metadata, FIELD, None)
        if tuned is None:
            return super().forward_mqa(*arguments)
        choice, counts = tuned
        floor = choice.plan[KNOB]
        if floor > 1 and self._bytes(attn_metadata.num_decode_tokens, floor) > self._room:
            counts.capped += 1
            return super().forward_mqa(*arguments)
        rows = self._room // self._bytes(1, floor)
        with set_for_now(self, ATTRIBUTE, floor), set_for_now(self, ROWS, rows):
            if choice.checked:
                return super().forward_mqa(*arguments)
            with calls_of(compat.module(PACKAGE), *LAUNCH) as seen:
                result = super().forward_mqa(*arguments)
        verified(choice, {KNOB: floor}, {KNOB: seen[0]} if seen else {}, counts)
        return result


TunedTokenspeedMLABackend = tuned_backend(
    VllmBackend, TunedTokenspeedMLAMetadataBuilder, TunedTokenspeedMLAImpl
)
