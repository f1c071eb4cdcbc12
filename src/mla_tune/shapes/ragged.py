"""Ragged batches: decode requests of one step whose KV lengths differ."""

__all__ = ["RaggedMix", "log_normal", "one_long"]

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from mla_tune.shapes.batch import BatchShape, RequestGroup

MOST_GROUPS = 12
"""Lengths of a batch that are told apart. A kernel's time goes by the sum and by the longest."""

GRAIN = 16
"""Tokens that lengths are rounded to, a block of the KV cache."""


@dataclass(frozen=True)
class RaggedMix:
    """How much of the traffic is ragged, and how.

    Attributes:
        share: of the steps at each KV length that a shapes file lists, those that are ragged with
            that length as their mean. 0: no batch is.
        sigma: of the normal distribution of the lengths' logarithms.
    """

    share: float = 0.5
    sigma: float = 1.0


def log_normal(requests: int, query_len: int, mean_kv: int, sigma: float, most: int) -> BatchShape:
    """``requests`` whose KV lengths are log-normal about ``mean_kv``, none above ``most`` tokens.

    The lengths stand at the middles of equally likely parts of the distribution, so the batch is
    the same for everyone and no seed's luck. The longest stands alone; the others are joined to
    `MOST_GROUPS` - 1 groups, each at its mean.
    """
    normal = NormalDist()
    drawn = [math.exp(sigma * normal.inv_cdf((rank + 0.5) / requests)) for rank in range(requests)]
    scale = mean_kv * requests / math.fsum(drawn)
    *rest, longest = (length * scale for length in drawn)
    groups = [RequestGroup(query_len, _rounded(longest, query_len, most), 1)]
    for part in _parts(rest, MOST_GROUPS - 1):
        mean = math.fsum(part) / len(part)
        groups.append(RequestGroup(query_len, _rounded(mean, query_len, most), len(part)))
    return BatchShape.of(groups)


def one_long(requests: int, query_len: int, long_kv: int, short_kv: int) -> BatchShape:
    """One request of ``long_kv`` tokens among others of ``short_kv``.

    What costs a plan of few splits most: the rest of the GPU waits for one request's parts.
    """
    return BatchShape.of(
        [RequestGroup(query_len, long_kv, 1), RequestGroup(query_len, short_kv, requests - 1)]
    )


def _rounded(kv_len: float, query_len: int, most: int) -> int:
    return min(most, max(query_len, GRAIN, round(kv_len / GRAIN) * GRAIN))


def _parts(lengths: Sequence[float], most: int) -> list[Sequence[float]]:
    """Ascending ``lengths`` in at most so many parts of about the same size."""
    count = min(most, len(lengths))
    edges = [place * len(lengths) // count for place in range(count + 1)]
    return [lengths[start:end] for start, end in itertools.pairwise(edges)]
