"""The sizes that a backend's KV cache blocks can have."""

__all__ = ["BlockSizes"]

from dataclasses import dataclass


@dataclass(frozen=True)
class BlockSizes:
    """Tokens in a block of the KV cache.

    Attributes:
        sizes: the valid ones. The first is what vLLM takes where ``--block-size`` is not given
            (``get_preferred_block_size``).
        multiples: whether multiples of the first are valid as well.
    """

    sizes: tuple[int, ...]
    multiples: bool = False

    @property
    def own(self) -> int:
        """What vLLM takes by itself."""
        return self.sizes[0]

    def __contains__(self, size: int) -> bool:
        return size in self.sizes or (self.multiples and size % self.own == 0)

    def __str__(self) -> str:
        return ("multiples of " if self.multiples else "") + " or ".join(map(str, self.sizes))
