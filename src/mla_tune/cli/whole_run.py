"""How far a run is, over all its devices, and how long the rest may take."""

__all__ = ["WholeRun"]

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.workload_cost import cost_of

FEWEST = 3
"""Batch shapes before which nothing is estimated: the first hold the opening of the session."""


@dataclass
class WholeRun:
    """What a run has come to, over all its devices.

    Attributes:
        total: batch shapes of the run.
        costs: of those that are still to be looked at, what they may take beside one another.
        decided: with their tables.
        passed: batch shapes that were looked at, with their tables.
        nominated: those of them that wait for other processes.
        failed: those that have no entry.
        num_from_study: entries for which nothing was measured.
        measured_at: when those were, as far as their studies say.
        without_default: tables whose default does not run, which has been said.
        devices: how many work side by side.
    """

    total: int = 0
    costs: dict[tuple[Path, str], float] = field(default_factory=dict)
    decided: list[tuple[TableJob, Entry]] = field(default_factory=list)
    passed: set[tuple[Path, str]] = field(default_factory=set)
    nominated: set[tuple[Path, str]] = field(default_factory=set)
    failed: set[tuple[Path, str]] = field(default_factory=set)
    num_from_study: int = 0
    measured_at: list[datetime] = field(default_factory=list)
    without_default: set[Path] = field(default_factory=set)
    devices: int = 0
    _measured: int = 0
    _spent_s: float = 0.0
    _spent_cost: float = 0.0
    _latest: float = 0.0

    def begun(self, jobs: Sequence[TableJob]) -> int:
        """Add what there is to do; returns how many batch shapes that is."""
        found = sum(len(job.workloads) for job in jobs)
        self.total += found  # a night finds tables that are due as it goes
        for job in jobs:
            self.costs |= {
                (job.path, str(workload)): cost_of(workload, None) for workload in job.workloads
            }
        return found

    def measured(self, job: TableJob, workload: Workload, seconds: float) -> None:
        """A batch shape has taken ``seconds``; to be told before it is `pass_by`."""
        self._measured += 1
        self._spent_s += seconds
        self._spent_cost += self.costs.get((job.path, str(workload)), 0.0)
        self._latest = time.monotonic()

    def pass_by(self, job: TableJob, workload: Workload) -> bool:
        """Count a batch shape, once: a nominee, or one of a lost device, comes by again."""
        key = (job.path, str(workload))
        if key in self.passed:
            return False
        self.passed.add(key)
        self.costs.pop(key, None)
        return True

    def seconds_left(self) -> float | None:
        """About how long what is left takes, by its cost beside what was measured; None unknown."""
        if self._measured < FEWEST or not self.costs or not self._spent_cost:
            return None
        whole_s = sum(self.costs.values()) * self._spent_s / self._spent_cost
        # Between two decisions the clock goes on, up to what one shape may take.
        gone_s = min(time.monotonic() - self._latest, 0.9 * whole_s / len(self.costs))
        return whole_s / (self.devices or 1) - gone_s

    @property
    def time_left(self) -> str:
        """The estimate in words, or nothing."""
        left_s = self.seconds_left()
        if left_s is None:
            return ""
        return f"about {left_s / 60:.0f} min left" if left_s > 90 else f"about {left_s:.0f} s left"
