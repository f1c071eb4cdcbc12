"""Where the time of a run goes: starts, compiling, trials, confirmation, and waiting."""

__all__ = ["Phase", "TimeSpent"]

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from mla_tune.cli.figures import told_duration


class Phase(Enum):
    """What a run is at, in the words in which it is told."""

    START = "starts of processes and sessions"
    COMPILING = "compiling ahead"
    TRIALS = "trials"
    CONFIRMATION = "confirmation"
    WAITING = "waiting for the device"
    REST = "the rest"


@dataclass
class TimeSpent:
    """Seconds by phase, of one device: of the batch shape that is under way, and in all.

    Args:
        clock: seconds.
        whole: those of the whole run, which its devices add to.
    """

    clock: Callable[[], float] = time.monotonic
    whole: dict[Phase, float] = field(default_factory=dict)
    _shape: dict[Phase, float] = field(default_factory=dict, init=False)
    _phase: Phase = field(default=Phase.START, init=False)
    _is_split: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._since = self.clock()

    def of_a_device(self) -> "TimeSpent":
        """The time of one of several devices; from then on theirs alone is counted."""
        self.enter(Phase.REST)
        self._is_split = True
        return TimeSpent(self.clock, self.whole)

    def enter(self, phase: Phase) -> None:
        """From now on time is spent on ``phase``."""
        if self._is_split:
            return
        now = self.clock()
        for spent in (self.whole, self._shape):
            spent[self._phase] = spent.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now

    def begin_shape(self) -> None:
        """A batch shape is begun: what came before is not its own."""
        self.enter(Phase.TRIALS)
        self._shape = {}

    def end_shape(self) -> str:
        """A batch shape is over: what it took, in a line."""
        self.enter(Phase.REST)
        told = _told(self._shape)
        self._shape = {}
        return told

    def in_all(self) -> str:
        """What the run took, in a line."""
        self.enter(Phase.REST)
        return _told(self.whole)


def _told(spent: dict[Phase, float]) -> str:
    seen = ((each, spent.get(each, 0.0)) for each in Phase)
    parts = [f"{told_duration(seconds)} {each.value}" for each, seconds in seen if seconds >= 0.5]
    return ": ".join(filter(None, [told_duration(sum(spent.values())), ", ".join(parts)]))
