"""Into how many thread blocks a decode kernel cuts a batch, by the value of its split knob."""

__all__ = ["BLOCK_H", "CUTTERS", "CappedSplits", "Cut", "Cutter", "FixedSplits"]

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

BLOCK_H = 16
"""Heads of one thread block of TRITON_MLA's decode kernel, vLLM's own launch."""


@dataclass(frozen=True)
class Cut:
    """Into what a kernel cuts one uniform batch.

    Attributes:
        rows: thread blocks of one part of the cache: requests times groups of heads.
        splits: into how many parts the cache of a request falls.
        part_tokens: the longest part.
        is_combined: whether a second kernel combines the parts, be it only one.
    """

    rows: int
    splits: int
    part_tokens: float
    is_combined: bool


class Cutter(Protocol):
    """How a backend's decode kernel cuts single-token batches, by the value of its knob."""

    @property
    def sm_count(self) -> int: ...

    def cut(self, batch: int, kv_len: int, value: int) -> Cut:
        """Into what ``batch`` requests of ``kv_len`` tokens are cut."""
        ...


@dataclass(frozen=True)
class FixedSplits:
    """The knob is the number of splits, as in TRITON_MLA.

    A second kernel always follows, which is then a part of every launch and no term of its own.

    Args:
        sm_count: streaming multiprocessors.
        num_q_heads: heads that one GPU holds.
        rows_per_block: heads of a thread block.
    """

    sm_count: int
    num_q_heads: int
    rows_per_block: int = BLOCK_H

    def cut(self, batch: int, kv_len: int, value: int) -> Cut:
        rows = batch * math.ceil(self.num_q_heads / self.rows_per_block)
        return Cut(rows, value, kv_len / value, False)


@dataclass(frozen=True)
class CappedSplits:
    """The knob is a cap (0: none) on the splits that FlashAttention chooses, as in FLASH_ATTN_MLA.

    Its scheduler (``prepare_varlen_num_blocks`` in hopper/flash_prepare_scheduler.cu) shares out
    all tiles of the batch over the multiprocessors with a margin of a tenth, whatever wave that
    ends in. A cap of 1 leaves out the combining kernel, any other has it even for one split.
    """

    sm_count: int
    num_q_heads: int
    rows_per_block: int = 64
    tile_tokens: int = 64

    def cut(self, batch: int, kv_len: int, value: int) -> Cut:
        rows = batch * math.ceil(self.num_q_heads / self.rows_per_block)
        tiles = math.ceil(kv_len / self.tile_tokens)
        splits = 1
        if value != 1:
            tiles_per_sm = math.ceil(rows * tiles * 1.1 / self.sm_count)
            splits = math.ceil(tiles / tiles_per_sm)
            splits = min(splits, value) if value else splits
        return Cut(rows, splits, math.ceil(tiles / splits) * self.tile_tokens, value != 1)


CUTTERS: Mapping[str, Callable[[int, int], Cutter]] = {
    "fixed": FixedSplits,
    "capped": CappedSplits,
}
"""Made of SM count and query heads; by the name that a backend and its tables have for the rule."""
