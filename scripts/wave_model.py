"""A model of decode latency in waves of thread blocks, and what it answers between measured points.

A decode kernel cuts each request into blocks: one for each group of heads and each part of the KV
cache. The GPU runs so many blocks at a time, in waves, so that latency over batch sizes is a
saw-tooth and over KV lengths a straight line. Coefficients are fitted by `wave_fit`; here they are
evaluated, in plain Python, since an engine does that.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

TERMS = (
    "launch",
    "request",
    "split",
    "block",
    "wave",
    "wave_token",
    "shared_wave",
    "shared_wave_token",
    "full_wave_token",
    "cache_token",
    "combine",
    "combine_request",
)
"""What latency is a sum of; see `terms`."""

FULL_WAVE = 0.75
"""Above this share of its slots a wave may be bound by memory: longer the fuller it is."""


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
    """TRITON_MLA: the knob is the number of splits, and a second kernel always follows.

    Args:
        sm_count: streaming multiprocessors.
        num_q_heads: heads that one GPU holds.
        heads_per_block: ``BLOCK_H`` of vLLM's decode kernel.
    """

    sm_count: int
    num_q_heads: int
    heads_per_block: int = 16

    def cut(self, batch: int, kv_len: int, value: int) -> Cut:
        rows = batch * math.ceil(self.num_q_heads / self.heads_per_block)
        return Cut(rows, value, kv_len / value, False)


@dataclass(frozen=True)
class CappedSplits:
    """FLASH_ATTN_MLA: the knob is a cap (0: none) on the splits that FlashAttention chooses itself.

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


def terms(cut: Cut, batch: int, kv_len: int, sm_count: int, occupancy: int) -> tuple[float, ...]:
    """What each of `TERMS` counts for one batch.

    Args:
        cut: of the batch, under one value of the knob.
        batch: requests.
        kv_len: tokens of each.
        sm_count: streaming multiprocessors.
        occupancy: blocks that one of them runs at a time.
    """
    blocks = cut.rows * cut.splits
    slots = sm_count * occupancy
    waves = math.ceil(blocks / slots)
    # Blocks that share a multiprocessor slow each other down.
    sharing = min(occupancy, math.ceil(blocks / sm_count)) - 1
    tokens = waves * cut.part_tokens
    return (
        1.0,
        batch,
        cut.splits,
        blocks,
        waves,
        tokens,
        waves * sharing,
        tokens * sharing,
        tokens * max(FULL_WAVE, blocks / (waves * slots)),
        cut.rows * kv_len,
        cut.is_combined,
        batch * cut.is_combined,
    )


@dataclass(frozen=True)
class WaveModel:
    """Latency of single-token decodes, fitted.

    Attributes:
        cutter: how the backend cuts a batch.
        occupancy: thread blocks that a multiprocessor runs at a time.
        microseconds: of each of `TERMS`; those that are zero are left out.
    """

    cutter: Cutter
    occupancy: int
    microseconds: Mapping[str, float]

    @property
    def slots(self) -> int:
        """Thread blocks that the GPU runs at a time."""
        return self.occupancy * self.cutter.sm_count

    def latency_us(self, batch: int, kv_len: int, value: int) -> float:
        """The latency under a ``value`` of the knob."""
        cut = self.cutter.cut(batch, kv_len, value)
        counts = terms(cut, batch, kv_len, self.cutter.sm_count, self.occupancy)
        coefficients = self.microseconds
        return sum(
            coefficients[name] * count
            for name, count in zip(TERMS, counts, strict=True)
            if name in coefficients
        )


@dataclass(frozen=True)
class Answer:
    """What a model says of one point.

    Attributes:
        outcome: ``plan`` (a value is proven to gain), ``default`` (no value is seen to) or
            ``miss`` (one is seen to, but not proven; or the point is out of what was measured).
        value: the fastest value by the model; the default's where the outcome is not ``plan``.
        gain: predicted latency of the default over the fastest value's.
    """

    outcome: str
    value: int
    gain: float = 1.0


@dataclass(frozen=True)
class ProvenModel:
    """A model with its own error, which answers no more than that error lets it.

    Attributes:
        model: the model.
        error: by which factor, less one, a predicted gain may be too large.
        gate: the gain that a plan must have.
        shortest: from which KV length on each value of the knob was measured.
        measured: all measured (batch, KV length).
    """

    model: WaveModel
    error: float
    gate: float
    shortest: Mapping[int, int]
    measured: Sequence[tuple[int, int]]

    def answer(self, batch: int, kv_len: int, default: int) -> Answer:
        """What to use for ``batch`` requests of ``kv_len``, where ``default`` is untuned."""
        values = [value for value, since in self.shortest.items() if since <= kv_len]
        if not values or not self.is_within(batch, kv_len):
            return Answer("miss", default)
        value, gain = fastest(self.model, batch, kv_len, values, default)
        if gain <= self.gate:
            return Answer("default", default, gain)
        if gain / (1 + self.error) <= self.gate:
            return Answer("miss", default, gain)
        return Answer("plan", value, gain)

    def is_within(self, batch: int, kv_len: int) -> bool:
        """Whether the point has measured ones on both sides: none smaller would extrapolate.

        That is, one with no more requests, one with no shorter KV length, and one with no fewer
        requests that are no shorter either: large batches are often not measured at full length.
        """
        return (
            any(count <= batch for count, _ in self.measured)
            and any(length <= kv_len for _, length in self.measured)
            and any(count >= batch and length >= kv_len for count, length in self.measured)
        )


def fastest(
    model: WaveModel, batch: int, kv_len: int, values: Sequence[int], default: int
) -> tuple[int, float]:
    """The value that the model takes for the fastest, and its gain over the default.

    Values that cut a batch alike are as fast; of these it is the default, else the smallest.
    """
    predicted_us = {value: model.latency_us(batch, kv_len, value) for value in values}
    value = min(predicted_us, key=lambda value: (predicted_us[value], value != default, value))
    return value, model.latency_us(batch, kv_len, default) / predicted_us[value]
