"""What a run shows on the terminal while it goes, and the summary at its end."""

__all__ = ["TerminalReporter"]

import copy
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console

from mla_tune.cli.decision_view import ScreenedBest, told_decision, told_since
from mla_tune.cli.figures import told_time
from mla_tune.cli.headline import headline
from mla_tune.cli.live_line import live_line
from mla_tune.cli.printing import say, say_error
from mla_tune.cli.table_view import show_table
from mla_tune.cli.time_spent import Phase, TimeSpent
from mla_tune.cli.whole_run import WholeRun
from mla_tune.errors import MlaTuneError
from mla_tune.plan.compilation import Compilation
from mla_tune.plan.kernel_resources import KernelResources
from mla_tune.plan.plan import Plan
from mla_tune.printable import counted, counted_are, printable
from mla_tune.registry import BACKENDS
from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.tuning.device_bench import WAITING
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.result import Cost
from mla_tune.tuning.study import Outcome

STARTING = "a worker imports what the backends need"

SHOWN_AT_ONCE = 50
"""Batch shapes from which on a brief run has no line for each."""


class TerminalReporter:
    """Progress as a live line on a terminal, one more for each of several devices, else as text."""

    def __init__(
        self, console: Console, *, is_brief: bool = False, is_verbose: bool = False
    ) -> None:
        """Begin to count the time.

        Args:
            console: where it is shown.
            is_brief: of many batch shapes, a line for some alone, and no tables.
            is_verbose: say where the time goes.
        """
        self._console = console
        self._is_brief = is_brief
        self._is_verbose = is_verbose
        self._time = TimeSpent()
        self._whole = WholeRun()
        self._device = ""
        self._progress = live_line(console, self._whole)
        self._task = self._progress.add_task("starting", total=None, state=STARTING)
        self._line = self._task
        self._current = ""
        self._plans = 0
        self._tried = 0
        self._began = 0.0
        self._is_measured = False
        self._won: tuple[Workload, Plan, KernelResources] | None = None
        self._since: datetime | None = None
        self._best = ScreenedBest()

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
        view._time = self._time.of_a_device()
        view._line = self._progress.add_task(printable(device), total=None, state="")
        return view

    def skipped(self, what: str) -> None:
        if what.endswith(WAITING):
            self._time.enter(Phase.WAITING)
            self._show(WAITING)
        say(self._console, what, style="dim")

    def begun(self, jobs: Sequence[TableJob]) -> None:
        self._time.enter(Phase.START)
        found = counted(self._whole.begun(jobs), "batch shape")
        self._progress.update(self._task, total=self._whole.total, state="")
        say(self._console, f"{found} for {counted(len(jobs), 'table')}")

    def opening(self, job: TableJob) -> None:
        self._time.enter(Phase.START)
        self._current = f"{self._device}{_titled(job)}"
        imports = ", which imports vLLM" if _is_of_vllm(job) else ""
        self._show(f"building a session{imports}")

    def started(self, job: TableJob, workload: Workload) -> None:
        self._time.begin_shape()
        self._current = f"{self._device}{_named(job, workload)}"
        self._began = time.monotonic()
        self._tried = 0
        self._won = None
        self._is_measured = False
        self._since = None
        self._best = ScreenedBest()
        self._show("")

    def searching(self, job: TableJob, workload: Workload, num_launches: int) -> None:
        self._time.enter(Phase.TRIALS)
        self._current = f"{counted(num_launches, 'launch')} on {_named(job, workload)}"
        self._tried = 0

    def launches_found(self, job: TableJob, launches: Sequence[Plan]) -> None:
        told = "; ".join(map(str, launches)) or "none is faster than the backend's own"
        say(self._console, f"{job.path.stem}: launches to tune over: {told}")

    def compiling(self, workload: Workload, num_plans: int) -> None:
        del workload
        self._time.enter(Phase.COMPILING)
        self._show(f"compiling kernels of {counted(num_plans, 'plan')}")

    def compiled(self, workload: Workload, done: Compilation) -> None:
        del workload
        self._is_measured = True
        self._time.enter(Phase.TRIALS)
        self._show(f"compiled {counted(done.kernels, 'kernel')} in {done.seconds:.0f} s")

    def planned(self, workload: Workload, num_plans: int) -> None:
        del workload
        self._plans = num_plans
        self._show(counted(num_plans, "plan"))

    def tried(self, workload: Workload, outcome: Outcome, best_us: float | None) -> None:
        del workload
        self._is_measured = True
        self._tried += 1
        self._best.tried(outcome, best_us)
        self._time.enter(Phase.TRIALS)
        best = f", best {told_time(best_us)}" if best_us else ""
        self._show(f"plan {self._tried}/{self._plans}{best} ({outcome.plan})")

    def confirming(self, workload: Workload, finalists: Sequence[Plan], rounds: int) -> None:
        del workload
        self._is_measured = True
        self._time.enter(Phase.CONFIRMATION)
        done = f", {counted(rounds, 'round')} done" if rounds else ""
        self._show(f"racing {counted(len(finalists), 'plan')}{done}")

    def remembered(self, workload: Workload, measured: datetime | None) -> None:
        del workload
        self._since = measured

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
            self._spent(job, workload)
            self._whole.num_from_study += not self._is_measured
            self._whole.measured_at += (
                [self._since] if self._since and not self._is_measured else []
            )
        self._passed(job, workload)
        self._whole.decided.append((job, entry))
        named = f"{self._device}{_named(job, workload)}"
        told = f"{told_decision(entry)}{self._takes(workload, entry)}{over}{self._why(entry)}"
        self._say_of_a_shape(f"{named}: {told}")
        if entry.default_us is None and job.path not in self._whole.without_default:
            # Users run that default today. Once a table: the cause is mostly the same for all.
            self._whole.without_default.add(job.path)
            told = f"what vLLM does untuned does not work here: {entry.note}"
            say(self._console, f"{job.setup.backend}: {told}", style="bold red")

    def nominated(self, job: TableJob, workload: Workload, entry: Entry) -> None:
        self._spent(job, workload)
        self._passed(job, workload)
        self._whole.nominated.add((job.path, str(workload)))
        takes = self._takes(workload, entry)
        told = f"{told_decision(entry)} in this process{takes}{self._why(entry)}"
        self._say_of_a_shape(f"{self._device}{_named(job, workload)}: {told}")

    def renewed(self, job: TableJob, num_nominees: int) -> None:
        self._time.enter(Phase.START)
        self._current = f"{self._device}{_titled(job)}"
        self._show("another process starts")
        told = f"another process confirms {counted(num_nominees, 'batch shape')}"
        say(self._console, f"{self._device}{job.path.stem}: {told}", style="dim")

    def failed(self, job: TableJob, workload: Workload, error: MlaTuneError) -> None:
        self._passed(job, workload)
        self._whole.failed.add((job.path, str(workload)))
        say_error(self._console, self._current, error)

    def given_up(self, job: TableJob, workloads: Sequence[Workload], error: MlaTuneError) -> None:
        for workload in workloads:
            self._passed(job, workload)
            self._whole.failed.add((job.path, str(workload)))
        shapes_are = counted_are(len(workloads), "batch shape")
        what = f"{job.path.stem}: {shapes_are} given up"
        say_error(self._console, what, error)

    def unpublished(self, job: TableJob, entries: Sequence[Entry], error: MlaTuneError) -> None:
        lost = {entry.shape for entry in entries}
        self._whole.failed |= {(job.path, shape) for shape in lost}
        self._whole.decided = [
            (owner, entry)
            for owner, entry in self._whole.decided
            if owner is not job or entry.shape not in lost
        ]
        what = f"{counted_are(len(entries), 'decided batch shape')} not in the table"
        say_error(self._console, what, error)

    def spent(self, job: TableJob, cost: Cost) -> None:
        if not cost.kernels:
            return
        kernels = f"{cost.compiling_s:.0f} s of them for {counted(cost.kernels, 'kernel')}"
        told = f"{cost.seconds:.0f} s, {kernels} compiled ahead"
        say(self._console, f"{job.path.stem}: {told}", style="dim")

    def _takes(self, workload: Workload, entry: Entry) -> str:
        """What the kernel takes of the GPU, of the batch shape that was tuned last."""
        if self._won is None or self._won[:2] != (workload, entry.plan):
            return ""
        (_, _, resources), self._won = self._won, None
        return f", {resources}"

    def _why(self, entry: Entry) -> str:
        """When it was measured, if not now; or why it is not what looked best."""
        if self._since is not None and not self._is_measured:
            return f", measured {told_since([self._since])}"
        return self._best.difference(entry)

    def _passed(self, job: TableJob, workload: Workload) -> None:
        if self._whole.pass_by(job, workload):
            self._progress.advance(self._task)

    def _spent(self, job: TableJob, workload: Workload) -> None:
        if self._is_measured:
            self._whole.measured(job, workload, time.monotonic() - self._began)

    @property
    def _has_too_many(self) -> bool:
        return self._is_brief and self._whole.total > SHOWN_AT_ONCE

    def _say_of_a_shape(self, told: str) -> None:
        took = self._time.end_shape()
        seen = len(self._whole.passed)
        if self._has_too_many:
            if seen % SHOWN_AT_ONCE == 0:
                say(self._console, f"{seen} of {self._whole.total} batch shapes")
            return
        left = self._whole.time_left
        say(self._console, f"{told}, {left}" if left else told)
        if self._is_verbose and self._is_measured:
            say(self._console, f"  {took}", style="dim")

    def _show(self, state: str) -> None:
        self._progress.update(
            self._line, description=printable(self._current), state=printable(state)
        )
        if self._line != self._task:
            self._progress.update(self._line, total=self._plans, completed=self._tried)

    def summary(self) -> None:
        """Print what was decided, a grid a table, where each was written, and the headline."""
        by_path: dict[Path, list[Entry]] = {}
        jobs: dict[Path, TableJob] = {}
        for job, entry in self._whole.decided:
            by_path.setdefault(job.path, []).append(entry)
            jobs[job.path] = job
        for path, entries in by_path.items():
            if self._whole.devices:  # they decided in an order of their own
                places = [str(workload) for workload in jobs[path].workloads]
                entries.sort(key=lambda entry: places.index(entry.shape))
            if not self._has_too_many:
                show_table(self._console, jobs[path].header, entries)
            say(self._console, f"written to {path}")
        whole = self._whole
        told = {(job.path, entry.shape): entry for job, entry in whole.decided}
        improved = {path for (path, _), entry in told.items() if entry.plan}
        for line in headline(
            *(list(told.values()), list(by_path)),
            servable=[path for path in by_path if path in improved and _is_of_vllm(jobs[path])],
            num_failed=len(whole.failed - set(told)),
            num_from_study=whole.num_from_study,
            since=told_since(whole.measured_at),
        ):
            say(self._console, line)
        if self._is_verbose:
            say(self._console, f"time: {self._time.in_all()}")


def _named(job: TableJob, workload: Workload) -> str:
    return f"{_titled(job)} {workload}"


def _is_of_vllm(job: TableJob) -> bool:
    return BACKENDS[job.setup.backend].is_vllm


def _titled(job: TableJob) -> str:
    setup = job.setup
    return f"{setup.backend} {setup.model.num_q_heads} heads {setup.mode}"
