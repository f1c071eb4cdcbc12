"""What a compiled kernel takes of the GPU that it runs on."""

__all__ = ["KernelResources"]

from dataclasses import dataclass


@dataclass(frozen=True)
class KernelResources:
    """What a decode kernel takes, as the driver says of it once it is loaded.

    Attributes:
        registers: of a thread, 32 bits each.
        spills: registers of a thread that are kept in memory, since there are no more.
        shared_bytes: shared memory of a thread block.
    """

    registers: int
    spills: int
    shared_bytes: int

    def __str__(self) -> str:
        return f"{self.registers} registers, spills {self.spills}"

    def most(self, other: "KernelResources | None") -> "KernelResources":
        """The larger of each, for a plan that launches two kernels."""
        if other is None:
            return self
        return KernelResources(
            max(self.registers, other.registers),
            max(self.spills, other.spills),
            max(self.shared_bytes, other.shared_bytes),
        )
