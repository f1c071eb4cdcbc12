"""CUTLASS_MLA: split counts per batch, with a workspace sized before anything is captured."""

__all__ = ["TunedCutlassMLABackend"]

import os
from collections.abc import Iterable, Mapping
from typing import Any

import vllm.v1.attention.backends.mla.cutlass_mla as vllm_cutlass_mla

from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.table.loading import LoadedTable
from mla_tune.vllm.backends.cutlass_mla import BACKEND, LAUNCH
from mla_tune.vllm.cutlass_workspace import (
    MOST_SPLITS,
    most_auto_row_splits,
    workspace_bytes,
)
from mla_tune.vllm.log import logger
from mla_tune.vllm.plugin.at_load import ReservesAtLoad
from mla_tune.vllm.plugin.builder import TunedBuilder
from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.engine import most_requests
from mla_tune.vllm.plugin.fidelity import ChecksSplits, checked_by_impl
from mla_tune.vllm.plugin.fields import Fields
from mla_tune.vllm.plugin.subclass import tuned_backend

VllmBackend: Any = vllm_cutlass_mla.CutlassMLABackend
VllmBuilder: Any = VllmBackend.get_builder_cls()
VllmImpl: Any = VllmBackend.get_impl_cls()

# Requests that may come beside the decodes of an eager entry in a mixed batch and still find room.
PREFILLS_BESIDE = 32
# The most that is reserved. Choices that need more stay as vLLM makes them.
MOST_BYTES = 2**30


def room_wanted(wanted: Iterable[tuple[int, int]], *, rows: int, sm_count: int) -> int:
    """Bytes of workspace that leave room for what tables ask for, and for vLLM's own choices.

    Args:
        wanted: (rows, splits) of the plans.
        rows: the most requests of any step.
        sm_count: streaming multiprocessors.
    """
    asked = (
        workspace_bytes(min(rows, most), splits)
        for most, splits in wanted
        if 1 <= splits <= MOST_SPLITS
    )
    # Where vLLM's own 128 MiB do not do for 512 requests and more, it enlarges them on the way.
    vllms = workspace_bytes(most_auto_row_splits(rows, sm_count), 1)
    return max(vllms, min(MOST_BYTES, max(asked, default=0)))


class TunedCutlassMLAMetadataBuilder(TunedBuilder, VllmBuilder):  # type: ignore[misc]
    mla_tune_backend = BACKEND.name
    mla_tune_knobs = TunedBuilder.mla_tune_knobs | {"num_kv_splits"}

    def metadata_fields(self, metadata: Any, choice: Choice, built_for: Choice) -> Fields:
        del built_for
        splits = choice.plan.number("num_kv_splits")
        if splits is None or not 1 <= splits <= MOST_SPLITS or not metadata.num_decodes:
            return ()
        if os.environ.get("FORCE_NUM_KV_SPLITS"):
            return ()
        rows = max(metadata.num_reqs, metadata.decode.block_table.shape[0])
        if workspace_bytes(rows, splits) > vllm_cutlass_mla.g_sm100_workspace.get_buf().shape[0]:
            # vLLM would enlarge the buffer that captured graphs point to.
            self._counts.capped += 1
            return ()
        return checked_by_impl(choice, self._counts)


class TunedCutlassMLAImpl(ReservesAtLoad, ChecksSplits, VllmImpl):  # type: ignore[misc]
    mla_tune_backend = BACKEND.name

    _num_kv_splits: int

    def _reserve_at_load(self, vllm_config: Any, tables: Mapping[str, LoadedTable]) -> None:
        super()._reserve_at_load(vllm_config, tables)
        shared = vllm_cutlass_mla.g_sm100_workspace
        wanted = [
            found
            for loaded in tables.values()
            for entry in loaded.table.entries
            if (found := _wanted(entry, loaded.mode))
        ]
        if not wanted:
            return
        rows = most_requests(vllm_config)
        needed = room_wanted(wanted, rows=rows, sm_count=shared._sm_count)
        buffer = shared.get_buf()
        if needed > buffer.shape[0]:
            # There is no official way to ask for a size. Nothing points to the buffer yet.
            logger.info("mla-tune: CUTLASS_MLA workspace %.2f GiB", needed / 2**30)
            buffer.resize_(needed)

    def split_argument(self) -> tuple[Any, str, str]:
        return self, *LAUNCH

    def forward_mqa(self, q: Any, kv_c_and_k_pe_cache: Any, attn_metadata: Any, *args: Any) -> Any:
        arguments = (q, kv_c_and_k_pe_cache, attn_metadata, *args)
        tuned = getattr(attn_metadata, "mla_tune", None)
        if tuned is None:
            return super().forward_mqa(*arguments)
        engine_wide = self._num_kv_splits
        self._num_kv_splits = tuned[0].plan["num_kv_splits"]
        try:
            return super().forward_mqa(*arguments)
        finally:
            self._num_kv_splits = engine_wide


def _wanted(entry: Entry, mode: str) -> tuple[int, int] | None:
    """The most rows of a step that an entry's plan may act in, and its splits."""
    splits = entry.plan.number("num_kv_splits")
    if splits is None:
        return None
    count = max(case.shape.num_requests for case in Workload.parse(entry.shape).cases)
    # An entry is for its own batch size, and no prefill is in a graph.
    return count + (0 if mode == "graph" else PREFILLS_BESIDE), splits


TunedCutlassMLABackend = tuned_backend(
    VllmBackend, TunedCutlassMLAMetadataBuilder, TunedCutlassMLAImpl
)
