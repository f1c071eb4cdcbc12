"""A model of the two paths of an extend: absorbed in the decode kernel, or up-projected in prefill.

A threshold decides which one a query length takes. Both latencies grow by the work alone once
there are several query tokens, so that each is a sum of few terms.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mla_tune.tuning.wave_fit import nonnegative

ROWS_PER_BLOCK = 64
"""Query rows (tokens times heads) of a thread block in FlashAttention and FlashMLA."""

QUERY_TILE = 128
"""Query tokens of a tile in the prefill kernels."""


@dataclass(frozen=True)
class Extend:
    """A uniform batch of several query tokens: requests, and tokens of each."""

    batch: int
    query_len: int
    kv_len: int


def decode_terms(extend: Extend, num_q_heads: int, sm_count: int) -> tuple[float, ...]:
    """Launch, projections of the query tokens, blocks, their work, and the same in whole waves."""
    blocks = extend.batch * math.ceil(extend.query_len * num_q_heads / ROWS_PER_BLOCK)
    return (
        1.0,
        extend.batch * extend.query_len,
        blocks,
        blocks * extend.kv_len,
        math.ceil(blocks / sm_count) * extend.kv_len,
    )


def prefill_terms(extend: Extend) -> tuple[float, ...]:
    """Launch, requests, projections of new tokens and of the context, attention to both."""
    context = extend.kv_len - extend.query_len
    tiles = math.ceil(extend.query_len / QUERY_TILE)
    return (
        1.0,
        extend.batch,
        extend.batch * extend.query_len,
        extend.batch * context,
        extend.batch * tiles * QUERY_TILE * context,
        extend.batch * extend.query_len**2,
        float(context > 0),
    )


@dataclass(frozen=True)
class Paths:
    """Measured latencies of extends in µs: by the decode path, and by the prefill path."""

    decode_us: Mapping[Extend, float]
    prefill_us: Mapping[Extend, float]
    num_q_heads: int
    sm_count: int

    @property
    def both(self) -> list[Extend]:
        """What was measured on both."""
        return [extend for extend in self.decode_us if extend in self.prefill_us]

    def predicted_us(self, asked: Extend) -> tuple[float, float]:
        """Decode and prefill latency of an extend, from the measurements of all others."""

        def decode(extend: Extend) -> tuple[float, ...]:
            return decode_terms(extend, self.num_q_heads, self.sm_count)

        others = {extend: us for extend, us in self.decode_us.items() if extend != asked}
        by_decode = _fitted([decode(extend) for extend in others], list(others.values()))
        others = {extend: us for extend, us in self.prefill_us.items() if extend != asked}
        by_prefill = _fitted([prefill_terms(extend) for extend in others], list(others.values()))
        return (
            float(np.dot(by_decode, decode(asked))),
            float(np.dot(by_prefill, prefill_terms(asked))),
        )


def _fitted(counts: Sequence[tuple[float, ...]], latency_us: Sequence[float]) -> list[float]:
    relative = np.array(counts, dtype=float) / np.array(latency_us)[:, None]
    return list(nonnegative(relative, np.ones(len(latency_us)))[0])
