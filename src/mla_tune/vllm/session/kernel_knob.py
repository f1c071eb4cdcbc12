"""What a session asks of what reaches a backend's decode kernel: knobs as its splits, a launch."""

__all__ = ["KernelKnob", "Launcher"]

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mla_tune.plan.kernel_resources import KernelResources
from mla_tune.plan.plan import Plan
from mla_tune.shapes import BatchShape

if TYPE_CHECKING:
    import torch


Value = TypeVar("Value", int, str)


class KernelKnob(Protocol[Value]):
    """One knob of one backend, whose values are numbers or names."""

    def default(self, shapes: Sequence[BatchShape]) -> Value:
        """The value that vLLM uses for ``shapes`` without any knob."""
        ...

    def values(self, shapes: Sequence[BatchShape]) -> tuple[Value, ...]:
        """The values worth trying for ``shapes``."""
        ...

    def expected(self, value: Value, decode_tokens: int) -> Value:
        """The value that must reach the kernel of a batch with so many decode tokens."""
        ...

    def admits(self, value: Value, decode_tokens: int) -> bool:
        """Whether ``value`` can run, such as with a workspace that the kernel can address."""
        ...

    def set(self, value: Value) -> AbstractContextManager[None]:
        """Set ``value`` where vLLM looks for it, for as long as the context lasts."""
        ...

    def stamp(self, metadata: Any, value: Value) -> None:
        """Write ``value`` into the metadata of one batch, where that is how it is told."""
        ...

    def observe(self) -> AbstractContextManager[list[Value]]:
        """Collect the value of every kernel launch while the context lasts."""
        ...


class Launcher(Protocol):
    """The launch constants of one backend's decode kernel, which are tried together."""

    def tried(self, device: "torch.device") -> tuple[Plan, ...]:
        """The launches worth trying on ``device``, all different, vLLM's own first."""
        ...

    def launching(self, launch: Plan) -> AbstractContextManager[None]:
        """Launch with other constants for as long as the context lasts; as vLLM with none."""
        ...

    def observed(self) -> AbstractContextManager[list[Plan]]:
        """Collect the constants of every launch of the kernel while the context lasts."""
        ...

    def resources(self) -> AbstractContextManager[list[KernelResources]]:
        """Collect what the compiled kernel of every launch takes while the context lasts."""
        ...
