"""How often the tables answered, for the log of a deployment."""

__all__ = ["Counts"]

import atexit
from collections import Counter

from mla_tune.runtime.log import logger
from mla_tune.runtime.replay import Replay

FIRST_REPORT = 256
STEPS_BETWEEN_REPORTS = 64


class Counts:
    """Steps by outcome, of one backend in one process.

    ``capped`` counts steps whose split count was lowered to fit the workspace, ``beyond`` graph
    steps with KV lengths past those that were measured, ``fallbacks`` failures in our own code,
    ``verified`` and ``not_applied`` the comparisons with what reached a kernel.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.capped = self.beyond = self.fallbacks = self.verified = self.not_applied = 0
        self._looked_up: Counter[str] = Counter()
        self._replays: list[Replay] = []
        self._ticks = 0
        self._next_report = FIRST_REPORT
        atexit.register(self._report_last)

    @property
    def outcomes(self) -> Counter[str]:
        total = self._looked_up.copy()
        for replay in self._replays:
            total[replay.choice.outcome] += replay.steps
        return +total

    @property
    def steps(self) -> int:
        return self.outcomes.total()

    def watch(self, replay: Replay) -> None:
        """Let the steps of ``replay`` count; it counts them itself."""
        self._replays.append(replay)

    def step(self, outcome: str) -> None:
        """Count a step that was looked up."""
        self._looked_up[outcome] += 1
        self._ticks += 1
        if self._ticks % STEPS_BETWEEN_REPORTS == 0:
            self.report()

    def report(self) -> None:
        """Log the counts if it is time."""
        steps = self.steps
        if steps >= self._next_report:
            # Ever rarer: an engine that serves for weeks must not fill its log.
            while steps >= self._next_report:
                self._next_report *= 4
            logger.info("mla-tune: %s", self)

    def _report_last(self) -> None:
        if self.steps:
            logger.info("mla-tune: at exit, %s", self)

    def __str__(self) -> str:
        told = [f"{name} {count}" for name, count in sorted(self.outcomes.items())]
        extras = ("capped", "beyond", "fallbacks", "verified", "not_applied")
        told += [f"{name.replace('_', ' ')} {getattr(self, name)}" for name in extras]
        return f"{self.backend} after {self.steps} steps: {', '.join(told)}"
