"""Into how many thread blocks a decode kernel cuts a batch, by the value of its split knob."""

__all__ = ["BLOCK_H", "CUTTERS", "Cut", "Cutter", "ScheduledSplits", "TiledSplits"]

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

BLOCK_H = 16
"""Heads of one thread block of TRITON_MLA's decode kernel, vLLM's own launch."""

BLOCK_N = 32
"""Tokens in one step of that kernel's loop over the KV cache."""

MOST_SCHEDULED = 992
"""Requests beyond which FlashAttention never splits (PREPARE_VARLEN_MAX_BATCHES_1CTA)."""


@dataclass(frozen=True)
class Cut:
    """Into what a kernel cuts one uniform batch.

    Attributes:
        rows: thread blocks of one part of the cache: requests times groups of heads.
        splits: into how many parts the cache of a request falls.
        part_tokens: the longest part, in whole steps of the kernel's loop.
        is_combined: whether a second kernel combines the parts, be it only one.
        is_scheduled: whether the kernel is persistent: one block a multiprocessor, which takes one
            part after the other. Else the hardware fills each multiprocessor with as many as fit.
    """

    rows: int
    splits: int
    part_tokens: int
    is_combined: bool
    is_scheduled: bool


class Cutter(Protocol):
    """How a backend's decode kernel cuts uniform batches, by the value of its knob."""

    @property
    def sm_count(self) -> int: ...

    def cut(self, batch: int, kv_len: int, value: int, query_len: int = 1) -> Cut:
        """Into what ``batch`` requests of ``kv_len`` tokens, ``query_len`` of them new, are cut."""
        ...


@dataclass(frozen=True)
class TiledSplits:
    """The knob is the number of splits, as in TRITON_MLA.

    ``_fwd_grouped_kernel_stage1`` (vllm/v1/attention/ops/triton_decode_attention.py) gives each
    split ``cdiv(kv_len, splits)`` tokens and goes through them in tiles. However few tokens the
    last one has, it takes as long as the others: the loop waits for latency, not for bytes.
    A second kernel always follows, which is then a part of every launch and no term of its own.

    Args:
        sm_count: streaming multiprocessors.
        num_q_heads: heads that one GPU holds.
        rows_per_block: heads of a thread block.
        tile_tokens: tokens of a tile.
    """

    sm_count: int
    num_q_heads: int
    rows_per_block: int = BLOCK_H
    tile_tokens: int = BLOCK_N

    def cut(self, batch: int, kv_len: int, value: int, query_len: int = 1) -> Cut:
        # Each query token is a batch row of its own.
        rows = batch * query_len * math.ceil(self.num_q_heads / self.rows_per_block)
        tiles = math.ceil(math.ceil(kv_len / value) / self.tile_tokens)
        return Cut(rows, value, tiles * self.tile_tokens, is_combined=False, is_scheduled=False)


@dataclass(frozen=True)
class ScheduledSplits:
    """The knob is a cap (0: none) on the splits that FlashAttention chooses, as in FLASH_ATTN_MLA.

    Its scheduler (``prepare_varlen_num_blocks`` in hopper/flash_prepare_scheduler.cu) shares out
    all tiles of the batch over the multiprocessors with a margin of a tenth, whatever wave that
    ends in. A persistent kernel then takes the parts one by one
    (``VarlenDynamicPersistentTileScheduler`` in tile_scheduler.hpp).

    A bound of 1 leaves out the combining kernel, any other has it even for one split. Without a
    cap the bound is ``num_splits_heuristic``'s (heuristics.h).
    """

    sm_count: int
    num_q_heads: int
    rows_per_block: int = 64
    tile_tokens: int = 64

    def cut(self, batch: int, kv_len: int, value: int, query_len: int = 1) -> Cut:
        # Query tokens and heads are rows of one matrix ("PackGQA").
        of_request = math.ceil(query_len * self.num_q_heads / self.rows_per_block)
        rows = batch * of_request
        tiles = math.ceil(kv_len / self.tile_tokens)
        bound = value or self._own_bound(of_request, tiles)
        splits = 1
        if bound > 1 and batch <= MOST_SCHEDULED:
            tiles_per_sm = math.ceil(rows * tiles * 1.1 / self.sm_count)
            splits = min(math.ceil(tiles / tiles_per_sm), bound)
        part = math.ceil(tiles / splits) * self.tile_tokens
        return Cut(rows, splits, part, is_combined=bound > 1, is_scheduled=True)

    def _own_bound(self, rows: int, tiles: int) -> int:
        """The fewest splits that fill waves to 0.85 of what any do, of one request alone.

        With a scheduler it is never asked for more than one.
        """
        if tiles <= 4 or rows >= 0.8 * self.sm_count:
            return 1
        filled = []
        for splits in range(1, min(128, self.sm_count, tiles) + 1):
            waves = rows * splits / self.sm_count
            filled.append(waves / math.ceil(waves))
        enough = 0.85 * max(filled)
        return 1 + next(place for place, share in enumerate(filled) if share >= enough)


CUTTERS: Mapping[str, Callable[[int, int], Cutter]] = {
    "tiled": TiledSplits,
    "scheduled": ScheduledSplits,
}
"""Made of SM count and query heads; by the name that a backend and its tables have for the rule.

A rule that is mended gets another name: a table's model holds for the rule it was fitted with.
"""
