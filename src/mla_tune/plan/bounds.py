"""What the values of a backend's knobs can be at all, known without vLLM and torch.

A search tries some of them (`mla_tune.plan.space.KnobDomain`). A value that is out of bounds is a
slip of the pen or comes from another program, and must reach no engine: there it would be a
kernel's argument, or decide on the size of a workspace.
"""

__all__ = ["THRESHOLDS", "Bounds", "Names", "Numbers", "outside"]

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mla_tune.plan.plan import Plan


class Bounds(Protocol):
    """The bounds of one knob of one backend."""

    def refused(self, value: Any, sm_count: int | None) -> str | None:
        """What is valid, where ``value`` is not; None where it is.

        ``sm_count`` is of the GPU that the plan is for; None on a CPU.
        """
        ...


@dataclass(frozen=True)
class Numbers:
    """A knob that is a whole number in one of ``ranges``.

    Attributes:
        ranges: such as ``(range(1, 17),)``.
        per_sm: the most for each streaming multiprocessor, where that is a bound too.
    """

    ranges: tuple[range, ...]
    per_sm: int | None = None

    @classmethod
    def of(cls, *values: int) -> "Numbers":
        """The bounds of a knob that is one of ``values``."""
        return cls(tuple(range(value, value + 1) for value in values))

    @property
    def largest(self) -> int:
        """The largest valid value on any device."""
        return max(values[-1] for values in self.ranges)

    def refused(self, value: Any, sm_count: int | None) -> str | None:
        ranges = self._on(sm_count)
        if any(value in values for values in ranges):
            return None
        return " or ".join(
            str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"
            for values in ranges
        )

    def _on(self, sm_count: int | None) -> tuple[range, ...]:
        if self.per_sm is None or sm_count is None:
            return self.ranges
        most = self.per_sm * sm_count
        return tuple(range(values.start, min(values.stop, most + 1)) for values in self.ranges)


@dataclass(frozen=True)
class Names:
    """A knob that is one of ``names``."""

    names: tuple[str, ...]

    def refused(self, value: Any, sm_count: int | None) -> str | None:
        del sm_count
        return None if value in self.names else ", ".join(self.names)


# Of reorder_batch_threshold, in tokens. vLLM's largest default is 1024, and no search tries more:
# attending over latents costs several times the work. 8192 leaves room, and is far from where
# tokens x heads overflow.
THRESHOLDS = Numbers((range(1, 8192 + 1),))


def outside(
    bounds: Mapping[str, Bounds], plan: Plan, sm_count: int | None
) -> Iterator[tuple[str, str]]:
    """Each knob of ``plan`` that is out of ``bounds``, and what is valid for it.

    A backend does not have the knobs that ``bounds`` does not name. ``sm_count`` is of the GPU
    that the plan is for; None on a CPU.
    """
    for knob, value in plan.items():
        if knob not in bounds:
            yield knob, "no value: the backend has no such knob"
        elif valid := bounds[knob].refused(value, sm_count):
            yield knob, valid
