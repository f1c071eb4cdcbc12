"""A model of decode latency in waves of thread blocks, and what it answers between measured points.

A decode kernel cuts each request into blocks: one for each group of heads and each part of the KV
cache. The GPU runs so many blocks at a time, in waves, so that latency over batch sizes is a
saw-tooth and over KV lengths a straight line. Tuning fits the coefficients; here they are
evaluated, in plain Python, since an engine does that.
"""

__all__ = [
    "TERMS",
    "Answer",
    "Error",
    "Length",
    "ProvenModel",
    "WaveModel",
    "fastest",
    "last_wave",
    "terms",
]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mla_tune.plan.cut import Cut, Cutter
from mla_tune.plan.plan import UNTUNED, Plan

TERMS = (
    "launch",
    "request",
    "split",
    "block",
    "wave",
    "wave_token",
    "shared_wave",
    "shared_wave_token",
    "half_wave_token",
    "full_wave_token",
    "cache_token",
    "cache_root",
    "combine",
    "combine_request",
)
"""What latency is a sum of; see `terms`."""

HALF_WAVE, FULL_WAVE = 0.5, 0.75
"""Above these shares of its slots a wave may be bound by memory: longer the fuller it is.

Where that begins depends on the GPU (FLASH_ATTN_MLA: at half of an H100, later on an H200); a fit
mixes the two.
"""


def terms(cut: Cut, batch: int, kv_len: int, sm_count: int, occupancy: int) -> tuple[float, ...]:
    """What each of `TERMS` counts for one batch.

    Args:
        cut: of the batch, under one value of the knob.
        batch: requests.
        kv_len: tokens of each.
        sm_count: streaming multiprocessors.
        occupancy: blocks that one of them runs at a time; a scheduled kernel has one.
    """
    blocks, part = cut.rows * cut.splits, cut.part_tokens
    slots = sm_count if cut.is_scheduled else sm_count * occupancy
    waves = math.ceil(blocks / slots)
    sharing, half, full = 0, 0.0, 0.0
    if cut.is_scheduled:
        half, full = (part * waves for waves in last_wave(blocks, slots))
    else:
        # Blocks that share a multiprocessor slow each other down, the few of a last wave too: a
        # multiprocessor ends all of its blocks at about a time, and takes the next together.
        sharing = min(occupancy, math.ceil(blocks / sm_count)) - 1
    tokens = cut.rows * kv_len
    return (
        1.0,
        batch,
        cut.splits,
        blocks,
        waves,
        waves * part,
        waves * sharing,
        waves * sharing * part,
        half,
        full,
        tokens,
        # Seen with both kernels: what a batch loads is spread unevenly, as of random draws.
        math.sqrt(tokens),
        cut.is_combined,
        batch * cut.is_combined,
    )


def last_wave(blocks: int, slots: int) -> tuple[float, float]:
    """How many waves of a persistent kernel ``blocks`` are, by where memory begins to bind.

    The blocks of the last wave have all of the memory's bandwidth, and it counts for as much as it
    is full, but for no less than `HALF_WAVE` and `FULL_WAVE`.
    """
    before = math.ceil(blocks / slots) - 1
    last = blocks / slots - before
    return before + max(HALF_WAVE, last), before + max(FULL_WAVE, last)


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
        outcome: ``plan`` (one is proven to gain), ``default`` (none is seen to) or ``miss`` (one
            is seen to, but not proven; or the point is out of what was measured).
        plan: the plan to use; empty, which is the default, where the outcome is another.
        gain: predicted latency of the default over the fastest plan's; None out of what was
            measured.
        error: by which share that may be too large.
    """

    outcome: str
    plan: Plan = UNTUNED
    gain: float | None = None
    error: float = 0.0

    @classmethod
    def of(cls, plan: Plan, gain: float, error: float, gate: float) -> "Answer":
        """What is said of the fastest ``plan``, by a model with this ``error``."""
        if gain <= gate:
            return cls("default", UNTUNED, gain)
        if gain / (1 + error) <= gate:
            return cls("miss", UNTUNED, gain, error)
        return cls("plan", plan, gain, error)

    @property
    def value(self) -> int | None:
        """The splits that the plan names, if any."""
        return self.plan.number("num_kv_splits")

    @property
    def unproven(self) -> str:
        """Why a miss is one."""
        if self.gain is None:
            return "outside of what was measured; the backend's default applies"
        return (
            f"a predicted gain of {self.gain:.3f}x is not proven, since one may be "
            f"{self.error:.1%} too large; the backend's default applies"
        )


class Length(NamedTuple):
    """A KV length, and the values that the backend may take there untuned.

    Where there are several, the fastest of them by the model is what a plan has to beat.
    """

    kv_len: int
    defaults: Sequence[int]


class Error(NamedTuple):
    """By which factor, less one, a predicted gain may be too large.

    A share of the latency, and a time: what a model has wrong of a launch weighs on short batches
    alone.
    """

    share: float
    us: float = 0.0

    def at(self, latency_us: float) -> float:
        """For a batch of this latency."""
        return self.share + self.us / latency_us


@dataclass(frozen=True)
class ProvenModel:
    """A model with its own error, which answers no more than that error lets it.

    Attributes:
        model: the model.
        error: what a predicted gain may be off by.
        gate: the gain that a plan must have.
        values: of the knob, each with the shortest KV length at which it was measured.
        smallest: fewest requests, and shortest KV length, that were measured.
        largest: measured (requests, KV length) to which no other measured one is equal or above
            in both.
    """

    model: WaveModel
    error: Error
    gate: float
    values: Mapping[int, int]
    smallest: tuple[int, int]
    largest: Sequence[tuple[int, int]]

    def answer(self, batch: int, lengths: Sequence[Length]) -> Answer:
        """What to use for ``batch`` requests of any KV length from the first to the last."""
        values = [value for value, since in self.values.items() if since <= lengths[0].kv_len]
        if not values or not all(self.is_within(batch, length.kv_len) for length in lengths):
            return Answer("miss")
        value, gain = fastest(self.model, batch, lengths, values)
        # Of all lengths the first is the shortest.
        error = self.error.at(self.model.latency_us(batch, lengths[0].kv_len, value))
        return Answer.of(Plan(num_kv_splits=value), gain, error, self.gate)

    def is_within(self, batch: int, kv_len: int) -> bool:
        """Whether there are measured points on all sides.

        Above in both at once: large batches are often not measured at full length.
        """
        return (
            batch >= self.smallest[0]
            and kv_len >= self.smallest[1]
            and any(batch <= count and kv_len <= length for count, length in self.largest)
        )


def fastest(
    model: WaveModel, batch: int, lengths: Sequence[Length], values: Sequence[int]
) -> tuple[int, float]:
    """The value that gains most over the default by the model, and its least gain of all lengths.

    Values that cut a batch alike are as fast; of these it is a default, else the smallest.
    """
    gains: dict[int, float] = {}
    for length in lengths:
        kv_len = length.kv_len
        default_us = min(model.latency_us(batch, kv_len, value) for value in length.defaults)
        for value in values:
            gain = default_us / model.latency_us(batch, kv_len, value)
            gains[value] = min(gain, gains.get(value, gain))
    defaults = lengths[0].defaults
    value = min(gains, key=lambda value: (-gains[value], value not in defaults, value))
    return value, gains[value]
