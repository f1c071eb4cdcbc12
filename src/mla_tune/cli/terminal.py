"""What a run shows on the terminal while it goes, and the summary at its end."""

__all__ = ["TerminalReporter"]

import copy
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mla_tune.cli.printing import say, say_error
from mla_tune.cli.table_view import show_table, told_plan
from mla_tune.errors import MlaTuneError
from mla_tune.plan.compilation import Compilation
from mla_tune.plan.kernel_resources import KernelResources
from mla_tune.plan.plan import Plan
from mla_tune.printable import printable
from mla_tune.shapes import Workload
from mla_tune.table import Entry, Speedup
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.result import Cost
from mla_tune.tuning.study import Outcome


@dataclass
class _Whole:
    """What a run has come to, over all its devices.

    Attributes:
        total: batch shapes of the run.
        left: those that are still to be looked at.
        spent_s: how long the last ones took.
        decided: with their tables.
        passed: batch shapes that were looked at, with their tables.
        nominated: those of them that wait for other processes.
        without_default: tables whose default does not run, which has been said.
        devices: how many work side by side.
    """

    total: int = 0
    left: int = 0
    spent_s: deque[float] = field(default_factory=lambda: deque(maxlen=200))
    decided: list[tuple[TableJob, Entry]] = field(default_factory=list)
    passed: set[tuple[Path, str]] = field(default_factory=set)
    nominated: set[tuple[Path, str]] = field(default_factory=set)
    without_default: set[Path] = field(default_factory=set)
    devices: int = 0

    @property
    def time_left(self) -> str:
        measured = [seconds for seconds in self.spent_s if seconds > 0.05]
        # The first ones hold the opening of the session and the compiling.
        if len(measured) < 3 or not self.left:
            return ""
        left_s = statistics.median(measured) * self.left / (self.devices or 1)
        return (
            f", about {left_s / 60:.0f} min left" if left_s > 90 else f", about {left_s:.0f} s left"
        )


class TerminalReporter:
    """Progress as a live line on a terminal, one more for each of several devices, else as text."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._whole = _Whole()
        self._device = ""
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("tuning", total=None, state="")
        self._line = self._task
        self._current = ""
        self._plans = 0
        self._tried = 0
        self._began = 0.0
        self._won: tuple[Workload, Plan, KernelResources] | None = None

    def __enter__(self) -> "TerminalReporter":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    @property
    def num_decided(self) -> int:
        return len(self._whole.decided)

    def on(self, device: str) -> "TerminalReporter":
        """As `Reporter.on`: a line of its own for ``device`` below the one of the whole run."""
        self._whole.devices += 1
        view = copy.copy(self)
        view._device = f"{device}: "
        view._line = self._progress.add_task(printable(device), total=None, state="")
        return view

    def skipped(self, what: str) -> None:
        say(self._console, what, style="dim")

    def begun(self, jobs: Sequence[TableJob]) -> None:
        found = sum(len(job.workloads) for job in jobs)
        self._whole.left += found  # a night finds tables that are due as it goes
        self._whole.total += found
        self._progress.update(self._task, total=self._whole.total)
        say(self._console, f"{found} batch shapes for {len(jobs)} table(s)")

    def started(self, job: TableJob, workload: Workload) -> None:
        self._current = f"{self._device}{_named(job, workload)}"
        self._began = time.monotonic()
        self._tried = 0
        self._won = None

    def searching(self, job: TableJob, workload: Workload, num_launches: int) -> None:
        self._current = f"{num_launches} launches on {_named(job, workload)}"
        self._tried = 0

    def launches_found(self, job: TableJob, launches: Sequence[Plan]) -> None:
        told = "; ".join(map(str, launches)) or "none is faster than the backend's own"
        say(self._console, f"{job.path.stem}: launches to tune over: {told}")

    def compiled(self, workload: Workload, done: Compilation) -> None:
        del workload
        self._show(f"compiled {done.kernels} kernels in {done.seconds:.0f} s")

    def planned(self, workload: Workload, num_plans: int) -> None:
        del workload
        self._plans = num_plans
        self._show(f"{num_plans} plans")

    def tried(self, workload: Workload, outcome: Outcome, best_us: float | None) -> None:
        del workload
        self._tried += 1
        best = f", best {best_us:.1f} µs" if best_us else ""
        self._show(f"plan {self._tried}/{self._plans} ({outcome.plan}){best}")

    def confirming(self, workload: Workload, finalists: Sequence[Plan], rounds: int) -> None:
        del workload
        self._show(f"confirming {len(finalists)} plans, round {rounds}")

    def won(self, workload: Workload, plan: Plan, resources: KernelResources) -> None:
        self._won = workload, plan, resources

    def kept(self, workload: Workload, doubt: str) -> None:
        del workload
        told = f"no verdict this time ({doubt}); the entry of an earlier run stays"
        say(self._console, f"{self._current}: {told}")

    def decided(self, job: TableJob, workload: Workload, entry: Entry) -> None:
        is_second = (job.path, str(workload)) in self._whole.nominated
        over = f" over {entry.processes} processes" if is_second and entry.processes else ""
        if not is_second:
            self._whole.spent_s.append(time.monotonic() - self._began)
        self._passed(job, workload)
        self._whole.decided.append((job, entry))
        named = f"{self._device}{_named(job, workload)}"
        told = f"{_told(entry)}{self._takes(workload, entry)}{over}{self._whole.time_left}"
        say(self._console, f"{named}: {told}")
        if entry.default_us is None and job.path not in self._whole.without_default:
            # Users run that default today. Once a table: the cause is mostly the same for all.
            self._whole.without_default.add(job.path)
            told = f"what vLLM does untuned does not work here: {entry.note}"
            say(self._console, f"{job.setup.backend}: {told}", style="bold red")

    def nominated(self, job: TableJob, workload: Workload, entry: Entry) -> None:
        self._whole.spent_s.append(time.monotonic() - self._began)
        self._passed(job, workload)
        self._whole.nominated.add((job.path, str(workload)))
        takes = self._takes(workload, entry)
        told = f"{_told(entry)} in this process{takes}{self._whole.time_left}"
        say(self._console, f"{self._device}{_named(job, workload)}: {told}")

    def renewed(self, job: TableJob, num_nominees: int) -> None:
        told = f"another process confirms {num_nominees} batch shapes"
        say(self._console, f"{self._device}{job.path.stem}: {told}", style="dim")

    def failed(self, job: TableJob, workload: Workload, error: MlaTuneError) -> None:
        self._passed(job, workload)
        say_error(self._console, self._current, error)

    def given_up(self, job: TableJob, workloads: Sequence[Workload], error: MlaTuneError) -> None:
        for workload in workloads:
            self._passed(job, workload)
        what = f"{job.path.stem}: {len(workloads)} batch shapes are given up"
        say_error(self._console, what, error)

    def unpublished(self, job: TableJob, entries: Sequence[Entry], error: MlaTuneError) -> None:
        lost = {entry.shape for entry in entries}
        self._whole.decided = [
            (owner, entry)
            for owner, entry in self._whole.decided
            if owner is not job or entry.shape not in lost
        ]
        what = f"{len(entries)} decided batch shapes are not in their table"
        say_error(self._console, what, error)

    def spent(self, job: TableJob, cost: Cost) -> None:
        if not cost.kernels:
            return
        told = f"{cost.seconds:.0f} s, {cost.compiling_s:.0f} s of them for {cost.kernels} kernels"
        say(self._console, f"{job.path.stem}: {told} compiled ahead", style="dim")

    def _takes(self, workload: Workload, entry: Entry) -> str:
        """What the kernel takes of the GPU, of the batch shape that was tuned last."""
        if self._won is None or self._won[:2] != (workload, entry.plan):
            return ""
        (_, _, resources), self._won = self._won, None
        return f", {resources}"

    def _passed(self, job: TableJob, workload: Workload) -> None:
        """Count a batch shape, once: a nominee, or one of a lost device, comes by again."""
        if (job.path, str(workload)) in self._whole.passed:
            return
        self._whole.passed.add((job.path, str(workload)))
        self._whole.left -= 1
        self._progress.advance(self._task)

    def _show(self, state: str) -> None:
        self._progress.update(
            self._line,
            description=printable(self._current),
            state=printable(state + self._whole.time_left),
        )
        if self._line != self._task:
            self._progress.update(self._line, total=self._plans, completed=self._tried)

    def summary(self) -> None:
        """Print what was decided, a grid a table, and where each was written."""
        by_path: dict[Path, list[Entry]] = {}
        jobs: dict[Path, TableJob] = {}
        for job, entry in self._whole.decided:
            by_path.setdefault(job.path, []).append(entry)
            jobs[job.path] = job
        for path, entries in by_path.items():
            if self._whole.devices:  # they decided in an order of their own
                places = [str(workload) for workload in jobs[path].workloads]
                entries.sort(key=lambda entry: places.index(entry.shape))
            show_table(self._console, jobs[path].header, entries)
            say(self._console, f"written to {path}")


def _named(job: TableJob, workload: Workload) -> str:
    setup = job.setup
    return f"{setup.backend} {setup.model.num_q_heads} heads {setup.mode} {workload}"


def _told(entry: Entry) -> str:
    gain = f", {_ratio(entry.speedup)} the default's speed" if entry.plan else ""
    return f"{told_plan(entry)}, {entry.latency_us:.1f} µs{gain}"


def _ratio(speedup: Speedup | None) -> str:
    return f"{speedup.median:.2f}×" if speedup else "no comparison with"
