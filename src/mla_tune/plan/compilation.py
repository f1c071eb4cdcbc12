"""What compiling plans ahead of measuring came to."""

__all__ = ["NOTHING_COMPILED", "Compilation"]

from collections.abc import Mapping
from dataclasses import dataclass, field

from mla_tune.plan.failure import PlanFailure
from mla_tune.plan.plan import Plan


@dataclass(frozen=True)
class Compilation:
    """Kernels that were compiled ahead.

    Attributes:
        kernels: how many; those that the compiler's cache had already are not counted.
        seconds: how long that took, all of them side by side.
        failures: the plans whose kernel hung the compiler or ended it, and would have taken the
            worker along.
    """

    kernels: int = 0
    seconds: float = 0.0
    failures: Mapping[Plan, PlanFailure] = field(default_factory=dict)

    def __add__(self, other: "Compilation") -> "Compilation":
        """What two of them came to, one after the other."""
        return Compilation(
            self.kernels + other.kernels,
            self.seconds + other.seconds,
            {**self.failures, **other.failures},
        )


NOTHING_COMPILED = Compilation()
