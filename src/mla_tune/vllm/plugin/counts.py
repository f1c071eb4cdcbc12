"""How often the tables answered, for the log of a deployment."""

__all__ = ["EVENTS", "Counts", "Tally"]

import atexit
from collections import Counter
from dataclasses import dataclass

from mla_tune.vllm.log import logger

EVENTS = ("capped", "beyond", "fallbacks", "verified", "not_applied")
"""What is counted beside steps; see `Counts`."""

FIRST_REPORT = 256
STEPS_BETWEEN_REPORTS = 64


@dataclass(slots=True, eq=False)
class Tally:
    """How many steps of one outcome have replayed a graph."""

    steps: int = 0


class Counts:
    """Steps by outcome, of one backend in one process.

    ``capped`` counts steps whose plan was left out, or its split count lowered, to fit the
    workspace, ``beyond`` graph steps with KV lengths past those that were measured, ``fallbacks``
    failures in our own code, ``verified`` and ``not_applied`` the comparisons with what reached a
    kernel.

    Lives as long as the process, so it holds numbers alone: neither builders, of which vLLM drops
    those it profiles with, nor anything of a graph, which vLLM may build for any number of times.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.capped = self.beyond = self.fallbacks = self.verified = self.not_applied = 0
        self._looked_up: Counter[str] = Counter()
        self._tallies: dict[str, Tally] = {}
        self._ticks = 0
        self._next_report = FIRST_REPORT
        atexit.register(self._report_last)

    @property
    def outcomes(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for (_, outcome), steps in self.by_mode().items():
            total[outcome] += steps
        return total

    def by_mode(self) -> dict[tuple[str, str], int]:
        """Steps by mode and outcome, those that there have been. May be asked by any thread."""
        eager = {("eager", outcome): steps for outcome, steps in self._looked_up.copy().items()}
        graph = {("graph", name): tally.steps for name, tally in self._tallies.copy().items()}
        return {key: steps for key, steps in (eager | graph).items() if steps}

    @property
    def steps(self) -> int:
        return self.outcomes.total()

    def tally(self, outcome: str) -> Tally:
        """What the replays of graphs with this ``outcome`` count themselves in."""
        return self._tallies.setdefault(outcome, Tally())

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
        told += [f"{name.replace('_', ' ')} {getattr(self, name)}" for name in EVENTS]
        return f"{self.backend} after {self.steps} steps: {', '.join(told)}"
