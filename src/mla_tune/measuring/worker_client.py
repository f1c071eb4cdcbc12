"""The bench that measures in a worker process, so that a plan can take down nothing else.

A plan that raises, hangs, exhausts memory, ends the process or corrupts the CUDA context takes the
worker with it. The bench on this side says which plan it was, and starts another worker for the
next question.
"""

__all__ = ["Limits", "Stopped", "WorkerBench"]

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mla_tune.errors import DeviceLost
from mla_tune.measuring.bench import SessionBench
from mla_tune.measuring.running_clock import RunningClock
from mla_tune.measuring.second_try import ask_about_plans, ask_without_plans
from mla_tune.measuring.stopwatch import Samples
from mla_tune.measuring.throttle import changed_clock, is_same_lock
from mla_tune.measuring.worker_main import BenchFactory
from mla_tune.measuring.worker_process import Limits, WorkerLost, WorkerProcess
from mla_tune.plan.compilation import Compilation
from mla_tune.plan.plan import Plan
from mla_tune.plan.space import PlanSpace
from mla_tune.registry import session_modules
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, Workload

DEFAULT_LIMITS = Limits()


class Stopped(Exception):
    """The bench was stopped by another thread: the run ends, for a reason told elsewhere."""


class WorkerBench:
    """A bench in a process of its own, replaced whenever a plan takes it down.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto`` for a GPU where there is one.
        log: where the worker's own output goes (vLLM logs a lot).
        limits: how long a step may take.
        factory: makes the bench in the worker.
        renewals: how many other processes are to follow, each of which starts beside the first
            one's imports, while nothing is measured, and waits with its own done. 0: none waits.
    """

    START_ATTEMPTS = 3
    START_PAUSE_S = 0.5
    CLOCK_PAUSE_S = 5.0

    def __init__(
        self,
        device: str,
        log: Path,
        limits: Limits = DEFAULT_LIMITS,
        factory: BenchFactory = SessionBench,
        renewals: int = 0,
    ) -> None:
        self.device = device
        self.log = log
        self._limits = limits
        self._factory = factory
        self._renewals = renewals
        self._spares: list[WorkerProcess] = []
        self._setup: Setup | None = None
        self._workload: Workload | None = None
        self._is_stopped = False
        self.clock = RunningClock()
        self.restarts = -1
        self._worker = self._started()
        self.environment = self._worker.environment

    def free_bytes(self) -> int:
        """Memory free for a session on the device."""
        return int(self._ask("free_bytes"))

    def device_identity(self) -> str:
        """As `mla_tune.device.choice.device_identity` says it where the device can be asked."""
        return str(self._ask("device_identity"))

    def open(self, setup: Setup) -> None:
        """Build the session for ``setup`` in the worker, on its device, closing an earlier one.

        Raises:
            UnavailableError: the backend cannot be built here.
            WorkloadFailure: the worker died building it.
        """
        self._workload = None
        self._setup = None
        own = replace(setup, device=self.device)
        self._ask_without_plans("open", own)
        self._setup = own

    def plan_space(self, shapes: Sequence[BatchShape]) -> PlanSpace:
        """As `Bench.plan_space`."""
        space: PlanSpace = self._ask_without_plans("plan_space", tuple(shapes))
        return space

    def load(self, workload: Workload) -> None:
        """As `Bench.load`. Raises WorkloadFailure when it does not load."""
        self._workload = None
        self._ask_without_plans("load", workload)
        self._workload = workload

    def compile(self, plans: Sequence[Plan]) -> Compilation:
        """As `Bench.compile`. Raises WorkloadFailure when two workers are lost over it."""
        done: Compilation = self._ask_without_plans("compile", tuple(plans), self._limits.warm_up_s)
        return done

    def race(
        self,
        plans: Sequence[Plan],
        rounds: int,
        seed: int,
        cases: Sequence[int] | None = None,
    ) -> dict[Plan, Samples]:
        """As `Bench.race`; a plan may also have timed out, or ended its worker."""
        ask = partial(self._ask, "race", tuple(plans), rounds, seed, cases)
        result: dict[Plan, Samples] = ask_about_plans(ask, self.log)
        return result

    def verify(self, plan: Plan) -> None:
        """As `Bench.verify`, with the failures that `race` adds."""
        ask_about_plans(partial(self._ask, "verify", plan), self.log)

    def renew(self) -> bool:
        """As `Bench.renew`; the next question starts the process."""
        self._workload = None
        self._worker.kill()
        self._renewals = max(0, self._renewals - 1)
        return True

    def close(self) -> None:
        """End the worker, and those that wait."""
        for process in (self._worker, *self._spares):
            process.kill()
        self._spares.clear()

    def stop(self) -> None:
        """End the worker for good, from another thread than the one that waits for its answer.

        Whoever waits for one, or asks from now on, gets `Stopped`.
        """
        self._is_stopped = True
        self._worker.end()

    def _ask_without_plans(self, name: str, *arguments: Any) -> Any:
        return ask_without_plans(partial(self._ask, name, *arguments), name, self.log)

    def _ask(self, name: str, *arguments: Any) -> Any:
        """Ask the worker, or a new one that has been brought to where the last one was."""
        if self._is_stopped:
            raise Stopped
        if self._worker.is_gone:
            self._worker = self._replacement()
            if self._setup is not None and name not in {"open", "free_bytes", "device_identity"}:
                self._ask("open", self._setup)
                if self._workload is not None:
                    self._ask("load", self._workload)
        if name == "open":
            self._have_spares(*arguments)
        return self._worker.ask(name, *arguments)

    def _have_spares(self, setup: Setup) -> None:
        """Start what is to follow, to import what a session of ``setup`` takes beside its worker.

        The imports are most of a start. A process that took the place of a dead one is made up for.
        """
        ahead = session_modules(setup.backend, self.device)
        while len(self._spares) < self._renewals:
            given = self.device, self.log, self._limits, self._factory, self.clock
            self._spares.append(WorkerProcess(*given, ahead=ahead))

    def _replacement(self) -> WorkerProcess:
        """Start a new worker, for which the SM clock has to be locked where the run found it.

        A GPU that is hot from the work before shows no lock for a while, so one look is not enough
        to end a night's run. Where the driver has stopped answering, nothing says that it changed.

        Raises:
            DeviceLost: it is not; or no worker starts.
        """
        before_mhz = now_mhz = self.environment.locked_sm_clock_mhz
        for _ in range(self.START_ATTEMPTS):
            worker = self._started()
            found = worker.environment
            now_mhz = found.locked_sm_clock_mhz
            is_silent = found.unwatched is not None and self.environment.unwatched is None
            if is_same_lock(before_mhz, now_mhz) or is_silent:
                return worker
            worker.kill()
            time.sleep(self.CLOCK_PAUSE_S)
        raise changed_clock(before_mhz, now_mhz)

    def _started(self) -> WorkerProcess:
        """Start a worker, and have ``device`` name what it found for ``auto``."""
        problem = ""
        for _ in range(self.START_ATTEMPTS):
            self.restarts += 1
            try:
                worker = self._next_process()
            except WorkerLost as lost:
                problem = lost.what
                time.sleep(self.START_PAUSE_S)
            else:
                self.device = worker.device
                return worker
        raise DeviceLost(f"no worker starts on {self.device}: {problem}", remedy=f"see {self.log}")

    def _next_process(self) -> WorkerProcess:
        """A process that has found its device: one that waited, if there is one."""
        if not self._spares:
            return WorkerProcess(self.device, self.log, self._limits, self._factory, self.clock)
        spare = self._spares.pop(0)
        spare.begin()
        return spare
