"""What a comparison of backends has found: plain data, which a start reads without scipy."""

__all__ = ["MOST_VISITS", "Comparison"]

from dataclasses import dataclass

from mla_tune.table import Speedup

MOST_VISITS = 8

BEHIND = 0.95
"""A backend that the first visit sees below it is not visited again."""


@dataclass(frozen=True)
class Comparison:
    """A contender beside the first one.

    Attributes:
        backend: its name.
        latencies_us: expected latency of a step, of the first contender and of this one; a step is
            as likely to be one of the workloads as another, and its KV lengths have their weights.
        visits: that were made.
        speedup: over the first, with its 95 % interval over processes; None where too few visits
            were made to say.
    """

    backend: str
    latencies_us: tuple[float, float]
    visits: int
    speedup: Speedup | None

    @property
    def is_near(self) -> bool:
        """Whether it may be faster, as far as latencies tell."""
        theirs, own = self.latencies_us
        return theirs > BEHIND * own

    def is_settled(self, gate: float) -> bool:
        """Whether its interval lies on one side of ``gate``."""
        return self.speedup is not None and not self.speedup.low <= gate <= self.speedup.high

    def is_final(self, gate: float) -> bool:
        """Whether it was not the time that ended it."""
        return self.is_settled(gate) or self.visits == MOST_VISITS or not self.is_near

    def __str__(self) -> str:
        theirs, own = self.latencies_us
        told = f"{theirs:.1f} µs -> {own:.1f} µs a layer and step"
        if self.speedup is not None:
            return f"{self.speedup} as fast, {told}"
        return f"{told}, from {self.visits} looks: too few to say more"
