"""The KV lengths within one step, as far as lookups and the recorder tell them apart."""

__all__ = ["ALIKE", "SKEWED_BEYOND", "Lengths"]

from typing import NamedTuple

SKEWED_BEYOND = 1.5
"""How many times the mean the longest request may be before no uniform entry speaks for a batch.

A uniform entry of the longest length promises parallelism that such a batch does not have.
"""

ALIKE = 1.02
"""How many times the mean the longest request may be where lengths count as the same. With 1.09
(six requests of 6000 tokens in the mean) a cap of FLASH_ATTN_MLA that gains 0.6 % on uniform ones
already took 1 % longer than the default on an H100."""


class Lengths(NamedTuple):
    """The KV lengths of the requests of one step.

    Attributes:
        requests: how many there are.
        total: their KV lengths, summed.
        longest: of the longest.
    """

    requests: int
    total: int
    longest: int

    @property
    def mean(self) -> int:
        """Of the requests, rounded down."""
        return self.total // self.requests

    @property
    def skew(self) -> float:
        """The longest over the mean; 1 for a dummy batch without any."""
        return self.longest * self.requests / self.total if self.total else 1.0

    @property
    def is_alike(self) -> bool:
        """Whether the lengths count as the same."""
        return self.skew <= ALIKE

    @property
    def is_skewed(self) -> bool:
        """Whether the longest request is far above the mean."""
        return self.skew > SKEWED_BEYOND
