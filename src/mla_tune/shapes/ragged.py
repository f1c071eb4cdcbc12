"""Ragged batches: decode requests of one step whose KV lengths differ."""

__all__ = ["RaggedMix", "RaggedSpec", "log_normal", "longest_of", "one_long", "with_longest"]

import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from mla_tune.shapes.batch import BatchShape, RequestGroup

MOST_GROUPS = 12
"""Lengths of a batch that are told apart. A kernel's time goes by the sum and by the longest."""

GRAIN = 16
"""Tokens that lengths are rounded to, a block of the KV cache."""


SIGMAS = range(2001)
"""Hundredths that the sigma of a batch with a given longest length is looked for among. At 20 all
but the longest have hardly a token."""


@dataclass(frozen=True)
class RaggedSpec:
    """Ragged batches of one size as they are served.

    Attributes:
        requests: of a batch.
        query_len: new tokens of each.
        mean_kv, longest_kv: of their KV lengths, in tokens.
        share: of the steps of that size, those that are like this.
    """

    requests: int
    query_len: int
    mean_kv: int
    longest_kv: int
    share: float

    @property
    def size(self) -> tuple[int, int]:
        """Requests and query length, which the graph is captured for."""
        return self.requests, self.query_len

    def batch(self) -> BatchShape:
        """The batch to measure for them."""
        return with_longest(self.requests, self.query_len, self.mean_kv, self.longest_kv)


@dataclass(frozen=True)
class RaggedMix:
    """How much of the traffic is ragged, and how.

    Attributes:
        share: of the steps at each KV length that a shapes file lists, those that are ragged with
            that length as their mean. 0: no batch is.
        sigma: of the normal distribution of the lengths' logarithms.
        specs: what is known of single sizes, in place of the two.
    """

    share: float = 0.5
    sigma: float = 1.0
    specs: tuple[RaggedSpec, ...] = ()

    def of_size(self, requests: int, query_len: int) -> list[RaggedSpec]:
        """What is known of one size, in the order of the shapes file."""
        return [spec for spec in self.specs if spec.size == (requests, query_len)]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """The sizes of which something is known, in the order of the shapes file."""
        return list(dict.fromkeys(spec.size for spec in self.specs))

    def up_to(self, tokens: int) -> "RaggedMix":
        """The mix without what has more KV tokens in all."""
        kept = (spec for spec in self.specs if spec.requests * spec.mean_kv <= tokens)
        return replace(self, specs=tuple(kept))


def log_normal(requests: int, query_len: int, mean_kv: int, sigma: float, most: int) -> BatchShape:
    """``requests`` whose KV lengths are log-normal about ``mean_kv``, none above ``most`` tokens.

    The lengths stand at the middles of equally likely parts of the distribution, so the batch is
    the same for everyone and no seed's luck. The longest stands alone; the others are joined to
    `MOST_GROUPS` - 1 groups, each at its mean.
    """
    drawn = [math.exp(sigma * middle) for middle in _middles(requests)]
    scale = mean_kv * requests / math.fsum(drawn)
    *rest, longest = (length * scale for length in drawn)
    groups = [RequestGroup(query_len, _rounded(longest, query_len, most), 1)]
    for part in _parts(rest, MOST_GROUPS - 1):
        mean = math.fsum(part) / len(part)
        groups.append(RequestGroup(query_len, _rounded(mean, query_len, most), len(part)))
    return BatchShape.of(groups)


def with_longest(requests: int, query_len: int, mean_kv: int, longest_kv: int) -> BatchShape:
    """``requests`` of ``mean_kv`` tokens in the mean, one of them of exactly ``longest_kv``.

    Log-normal as in `log_normal`, with the sigma that has this longest length. Groups are rounded
    to blocks, so the mean is off by half of one at most.

    Args:
        requests: two or more.
        query_len: new tokens of each, which their KV length counts.
        mean_kv: more than ``query_len``.
        longest_kv: from ``mean_kv`` to `longest_of`.
    """
    middles = _middles(requests)
    # Of the tokens above what the shortest request has.
    shortest = _shortest(query_len)
    mean, longest = mean_kv - shortest, longest_kv - shortest

    def skew(hundredths: int) -> float:
        # Relative to the longest: exponentials of large sigmas stay below one.
        sigma = hundredths / 100
        return requests / math.fsum(math.exp(sigma * (z - middles[-1])) for z in middles)

    # The next lower one, so that no other request comes out longer.
    sigma = SIGMAS[bisect_right(SIGMAS, longest / mean if mean else 1.0, key=skew) - 1] / 100
    drawn = [math.exp(sigma * (z - middles[-2])) for z in middles[:-1]]
    scale = (mean * requests - longest) / math.fsum(drawn)
    groups = [RequestGroup(query_len, longest_kv, 1)]
    for part in _parts(drawn, MOST_GROUPS - 1):
        kv_len = shortest + scale * math.fsum(part) / len(part)
        groups.append(RequestGroup(query_len, _in_blocks(kv_len, shortest, longest_kv), len(part)))
    return BatchShape.of(groups)


def longest_of(requests: int, query_len: int, mean_kv: int) -> int:
    """The longest KV length in a batch of that mean: all others are as short as can be."""
    return _shortest(query_len) + requests * (mean_kv - _shortest(query_len))


def one_long(requests: int, query_len: int, long_kv: int, short_kv: int) -> BatchShape:
    """One request of ``long_kv`` tokens among others of ``short_kv``.

    What costs a plan of few splits most: the rest of the GPU waits for one request's parts.
    """
    return BatchShape.of(
        [RequestGroup(query_len, long_kv, 1), RequestGroup(query_len, short_kv, requests - 1)]
    )


def _middles(requests: int) -> list[float]:
    """Where the middles of equally likely parts of a normal distribution stand, ascending."""
    normal = NormalDist()
    return [normal.inv_cdf((rank + 0.5) / requests) for rank in range(requests)]


def _shortest(query_len: int) -> int:
    """The shortest KV length of a request that decodes: a token before the new ones."""
    return query_len + 1


def _in_blocks(kv_len: float, least: int, most: int) -> int:
    """The nearest number of whole blocks, or of tokens where that is less than ``least``."""
    blocks = round(kv_len / GRAIN) * GRAIN
    return min(most, blocks if blocks >= least else round(kv_len))


def _rounded(kv_len: float, query_len: int, most: int) -> int:
    return min(most, max(query_len, GRAIN, round(kv_len / GRAIN) * GRAIN))


def _parts(lengths: Sequence[float], most: int) -> list[Sequence[float]]:
    """Ascending ``lengths`` in at most so many parts of about the same size."""
    count = min(most, len(lengths))
    edges = [place * len(lengths) // count for place in range(count + 1)]
    return [lengths[start:end] for start, end in itertools.pairwise(edges)]
