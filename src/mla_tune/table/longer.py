"""A model of batches with several query tokens: the latency of both paths they may take.

Absorbed in the decode kernel, an extend is a batch of more rows: a thread block takes so many of
them (tokens times heads), and all blocks of one request load the same part of the cache.
Up-projected in the prefill path, latency is a sum of work alone.
"""

__all__ = [
    "DECODE_TERMS",
    "PREFILL",
    "PREFILL_TERMS",
    "Extend",
    "LongerModel",
    "Paths",
    "decode_terms",
    "prefill_terms",
]

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mla_tune.plan.cut import Cutter
from mla_tune.plan.plan import Plan
from mla_tune.table.waves import Answer, Error, last_wave

DECODE_TERMS = (
    "launch",
    "query_token",
    "split",
    "block",
    "wave",
    "wave_token",
    "half_wave_token",
    "full_wave_token",
    "cache_token",
    "cache_root",
    "row_token",
    "row_root",
    "partial_result",
)
PREFILL_TERMS = (
    "launch",
    "request",
    "query_token",
    "context_token",
    "query_context",
    "query_square",
    "context",
    "context_root",
    "query_root",
)
"""What latency is a sum of on the two paths; see `decode_terms` and `prefill_terms`."""

PREFILL = -1
"""Stands for the prefill path where else the decode kernel's cap stands."""

QUERY_TILE = 128
"""Query tokens of a tile in the prefill kernels."""


class Extend(NamedTuple):
    """Requests of as many query tokens and KV tokens each, the new ones counted."""

    batch: int
    query_len: int
    kv_len: int


def decode_terms(cutter: Cutter, asked: Extend, value: int) -> tuple[float, ...]:
    """What each of `DECODE_TERMS` counts, under a ``value`` of the split knob."""
    cut = cutter.cut(asked.batch, asked.kv_len, value, asked.query_len)
    blocks, part, sm_count = cut.rows * cut.splits, cut.part_tokens, cutter.sm_count
    waves = math.ceil(blocks / sm_count)
    half, full = last_wave(blocks, sm_count)
    cached, loaded = asked.batch * asked.kv_len, cut.rows * asked.kv_len
    tokens = asked.batch * asked.query_len
    return (
        1.0,
        tokens,
        cut.splits,
        blocks,
        waves,
        waves * part,
        part * half,
        part * full,
        cached,
        math.sqrt(cached),
        loaded,
        math.sqrt(loaded),
        tokens * cut.splits * cut.is_combined,
    )


def prefill_terms(asked: Extend) -> tuple[float, ...]:
    """What each of `PREFILL_TERMS` counts."""
    batch, query_len, kv_len = asked
    context = kv_len - query_len
    tiled = math.ceil(query_len / QUERY_TILE) * QUERY_TILE
    return (
        1.0,
        batch,
        batch * query_len,
        batch * context,
        batch * tiled * context,
        batch * query_len**2,
        float(context > 0),
        math.sqrt(batch * context),
        math.sqrt(batch * query_len),
    )


@dataclass(frozen=True)
class Paths:
    """Latencies of both paths, fitted.

    Attributes:
        cutter: how the decode kernel cuts a batch.
        decode_us, prefill_us: microseconds of each term; those that are zero are left out.
    """

    cutter: Cutter
    decode_us: Mapping[str, float]
    prefill_us: Mapping[str, float]

    def latency_us(self, asked: Extend, value: int) -> float:
        """On the decode path under a ``value`` of the split knob, or on the prefill path."""
        if value == PREFILL:
            return _sum(self.prefill_us, PREFILL_TERMS, prefill_terms(asked))
        return _sum(self.decode_us, DECODE_TERMS, decode_terms(self.cutter, asked, value))


@dataclass(frozen=True)
class LongerModel:
    """A model of both paths with its own error, which answers no more than that error lets it.

    Attributes:
        paths: the model.
        error: what a predicted gain may be off by.
        gate: the gain that a plan must have.
        threshold: the backend's own: the longest query that takes the decode path untuned.
        default: the value of the split knob untuned.
        values: of the split knob.
        most_tokens: query tokens of a batch, beyond which the knob does not act.
        smallest: fewest requests, shortest query and KV length that were measured.
        largest: measured extends to which no other measured one is equal or above in all three.
    """

    paths: Paths
    error: Error
    gate: float
    threshold: int
    default: int
    values: Sequence[int]
    most_tokens: int
    smallest: Extend
    largest: Sequence[Extend]

    def answer(self, batch: int, query_len: int, kv_lens: Sequence[int]) -> Answer:
        """What to use for ``batch`` requests of any KV length from the first to the last.

        The decode path is answered up to the backend's own threshold alone: beyond, its outputs
        are compared at the lengths of entries only.
        """
        asked = [Extend(batch, query_len, kv_len) for kv_len in kv_lens]
        if not all(map(self._is_within, asked)) or query_len > self.threshold:
            return Answer("miss")
        acts = batch * query_len <= self.most_tokens
        default = self.default if acts else 0
        gains = {value: self._gain(asked, value, default) for value in self.choices(acts)}
        value = max(gains, key=lambda value: (gains[value], value == default))
        error = self.error.at(self.paths.latency_us(asked[0], value))
        plan = Plan(reorder_batch_threshold=self.threshold, num_kv_splits=value)
        if value == PREFILL:
            plan = Plan(reorder_batch_threshold=1)
        return Answer.of(plan, gains[value], error, self.gate)

    def choices(self, acts: bool) -> tuple[int, ...]:
        """What a batch can be given; the knob ``acts`` on it or not."""
        return (*self.values, PREFILL) if acts else (0, PREFILL)

    def _gain(self, asked: Sequence[Extend], value: int, default: int) -> float:
        latency_us = self.paths.latency_us
        return min(latency_us(each, default) / latency_us(each, value) for each in asked)

    def _is_within(self, asked: Extend) -> bool:
        """Whether there are measured extends on all sides, and tokens in the cache before."""
        return (
            asked.kv_len > asked.query_len
            and all(one >= least for one, least in zip(asked, self.smallest, strict=True))
            and any(
                all(one <= most for one, most in zip(asked, large, strict=True))
                for large in self.largest
            )
        )


def _sum(us: Mapping[str, float], names: Iterable[str], counts: Iterable[float]) -> float:
    return sum(us[name] * count for name, count in zip(names, counts, strict=True) if name in us)
