"""What a run shows on the terminal while it goes, and the summary at its end."""

__all__ = ["TerminalReporter"]

import statistics
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mla_tune.cli.printing import say, say_error
from mla_tune.cli.table_view import show_table, told_plan
from mla_tune.errors import MlaTuneError
from mla_tune.plan.plan import Plan
from mla_tune.printable import printable
from mla_tune.shapes import Workload
from mla_tune.table import Entry, Header, Speedup
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.study import Outcome


class TerminalReporter:
    """Progress as a live line on a terminal, and as plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
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
        self._current = ""
        self._plans = 0
        self._tried = 0
        self._left = 0
        self._spent_s: deque[float] = deque(maxlen=200)
        self._began = 0.0
        self._decided: list[tuple[TableJob, Entry]] = []
        self._nominated: set[tuple[Path, str]] = set()
        self._without_default: set[Path] = set()

    def __enter__(self) -> "TerminalReporter":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    @property
    def num_decided(self) -> int:
        return len(self._decided)

    def skipped(self, what: str) -> None:
        say(self._console, what, style="dim")

    def begun(self, jobs: Sequence[TableJob]) -> None:
        self._left = sum(len(job.workloads) for job in jobs)
        self._progress.update(self._task, total=self._left)
        say(self._console, f"{self._left} batch shapes for {len(jobs)} table(s)")

    def started(self, job: TableJob, workload: Workload) -> None:
        self._current = _named(job, workload)
        self._began = time.monotonic()
        self._tried = 0

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

    def kept(self, workload: Workload, doubt: str) -> None:
        del workload
        told = f"no verdict this time ({doubt}); the entry of an earlier run stays"
        say(self._console, f"{self._current}: {told}")

    def decided(self, job: TableJob, workload: Workload, entry: Entry) -> None:
        is_second = (job.path, str(workload)) in self._nominated
        over = f" over {entry.processes} processes" if is_second and entry.processes else ""
        if not is_second:
            self._spent_s.append(time.monotonic() - self._began)
        self._passed(job, workload)
        self._decided.append((job, entry))
        say(self._console, f"{_named(job, workload)}: {_told(entry)}{over}{self._time_left()}")
        if entry.default_us is None and job.path not in self._without_default:
            # Users run that default today. Once a table: the cause is mostly the same for all.
            self._without_default.add(job.path)
            told = f"what vLLM does untuned does not work here: {entry.note}"
            say(self._console, f"{job.setup.backend}: {told}", style="bold red")

    def nominated(self, job: TableJob, workload: Workload, entry: Entry) -> None:
        self._spent_s.append(time.monotonic() - self._began)
        self._passed(job, workload)
        self._nominated.add((job.path, str(workload)))
        told = f"{_told(entry)} in this process{self._time_left()}"
        say(self._console, f"{_named(job, workload)}: {told}")

    def renewed(self, job: TableJob, num_nominees: int) -> None:
        told = f"another process confirms {num_nominees} batch shapes"
        say(self._console, f"{job.path.stem}: {told}", style="dim")

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
        self._decided = [
            (owner, entry)
            for owner, entry in self._decided
            if owner is not job or entry.shape not in lost
        ]
        what = f"{len(entries)} decided batch shapes are not in their table"
        say_error(self._console, what, error)

    def _passed(self, job: TableJob, workload: Workload) -> None:
        """Count a batch shape, once: one that was nominated comes by again."""
        if (job.path, str(workload)) in self._nominated:
            return
        self._left -= 1
        self._progress.advance(self._task)

    def _show(self, state: str) -> None:
        self._progress.update(
            self._task,
            description=printable(self._current),
            state=printable(state + self._time_left()),
        )

    def _time_left(self) -> str:
        measured = [seconds for seconds in self._spent_s if seconds > 0.05]
        # The first ones hold the opening of the session and the compiling.
        if len(measured) < 3 or not self._left:
            return ""
        left_s = statistics.median(measured) * self._left
        return (
            f", about {left_s / 60:.0f} min left" if left_s > 90 else f", about {left_s:.0f} s left"
        )

    def summary(self) -> None:
        """Print what was decided, a grid a table, and where each was written."""
        by_path: dict[Path, list[Entry]] = {}
        headers: dict[Path, Header] = {}
        for job, entry in self._decided:
            by_path.setdefault(job.path, []).append(entry)
            headers[job.path] = job.header
        for path, entries in by_path.items():
            show_table(self._console, headers[path], entries)
            say(self._console, f"written to {path}")


def _named(job: TableJob, workload: Workload) -> str:
    setup = job.setup
    return f"{setup.backend} {setup.model.num_q_heads} heads {setup.mode} {workload}"


def _told(entry: Entry) -> str:
    gain = f", {_ratio(entry.speedup)} the default's speed" if entry.plan else ""
    return f"{told_plan(entry)}, {entry.latency_us:.1f} µs{gain}"


def _ratio(speedup: Speedup | None) -> str:
    return f"{speedup.median:.2f}×" if speedup else "no comparison with"
