"""What a session asks of a backend's split knob."""

__all__ = ["SplitKnob"]

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from mla_tune.shapes import BatchShape


class SplitKnob(Protocol):
    """One backend's ``num_kv_splits``."""

    def default(self, shapes: Sequence[BatchShape]) -> int:
        """The value that vLLM uses for ``shapes`` without any knob."""
        ...

    def values(self, shapes: Sequence[BatchShape]) -> tuple[int, ...]:
        """The values worth trying for ``shapes``."""
        ...

    def expected(self, value: int, decode_tokens: int) -> int:
        """The split count that must reach the kernel of a batch with so many decode tokens."""
        ...

    def admits(self, value: int, decode_tokens: int) -> bool:
        """Whether the workspace of ``value`` splits is one that the kernel can address."""
        ...

    def set(self, value: int) -> AbstractContextManager[None]:
        """Set ``value`` where vLLM looks for it, for as long as the context lasts."""
        ...

    def stamp(self, metadata: Any, value: int) -> None:
        """Write ``value`` into the metadata of one batch, where that is how it is told."""
        ...

    def observe(self) -> AbstractContextManager[list[int]]:
        """Collect the split count of every kernel launch while the context lasts."""
        ...
