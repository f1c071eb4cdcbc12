"""The killable process that owns one device and its session.

A plan that raises, hangs, exhausts memory, ends the process or corrupts the CUDA context takes
this process with it and nothing else: the bench on this side says which plan it was, and
starts another process for the next question.
"""

__all__ = ["Limits", "WorkerBench"]

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from mla_tune.environment import Environment
from mla_tune.errors import EnvironmentFailure, PlanFailure, WorkloadFailure
from mla_tune.measuring.bench import SessionBench
from mla_tune.measuring.running_clock import RunningClock, is_stopped
from mla_tune.measuring.stopwatch import Samples
from mla_tune.measuring.throttle import changed_clock, is_same_lock
from mla_tune.measuring.worker_main import IGNORED_SIGNALS, BenchFactory, serve
from mla_tune.plan.knobs import Plan, PlanSpace
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, Workload

# Sent by a person, a terminal that closes or a batch system; no plan ends its process with them.
FROM_OUTSIDE = {"SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"}


@dataclass(frozen=True)
class Limits:
    """Seconds that a step of a plan may take before its worker is killed.

    Only time in which this process and the worker ran counts; see `RunningClock`.
    ``warm_up_s`` holds compilation and graph capture, ``open_s`` the imports and the session.
    """

    sample_s: float = 30.0
    warm_up_s: float = 180.0
    open_s: float = 600.0

    def of(self, step: str) -> float:
        """The limit of an announced step."""
        return self.sample_s if step == "sample" else self.warm_up_s


class WorkerBench:
    """A bench in a process of its own, replaced whenever a plan takes it down.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto`` for a GPU where there is one.
        log: where the worker's own output goes (vLLM logs a lot).
        limits: how long a step may take.
        factory: makes the bench in the worker.
    """

    START_ATTEMPTS = 3
    ATTEMPTS_FROM_OUTSIDE = 3
    CLOCK_PAUSE_S = 5.0

    def __init__(
        self,
        device: str,
        log: Path,
        limits: Limits = Limits(),
        factory: BenchFactory = SessionBench,
    ) -> None:
        self.device = device
        self.log = log
        self._limits = limits
        self._factory = factory
        self._process: Any = None
        self._connection: Connection | None = None
        self._setup: Setup | None = None
        self._workload: Workload | None = None
        self._ended_by = ""
        self.clock = RunningClock()
        self.restarts = -1
        self.environment = self._started()

    def free_bytes(self) -> int:
        """Memory free for a session on the device."""
        return int(self._ask("free_bytes"))

    def device_identity(self) -> str:
        """As `mla_tune.device.choice.device_identity` says it where the device can be asked."""
        return str(self._ask("device_identity"))

    def open(self, setup: Setup) -> None:
        """Build the session for ``setup`` in the worker, closing an earlier one.

        Raises:
            UnavailableError: the backend cannot be built here.
            WorkloadFailure: the worker died building it.
        """
        self._workload = None
        self._setup = None
        self._answer_or_restart("open", setup)
        self._setup = setup

    def plan_space(self, shapes: Sequence[BatchShape]) -> PlanSpace:
        """As `Bench.plan_space`."""
        space: PlanSpace = self._answer_or_restart("plan_space", tuple(shapes))
        return space

    def load(self, workload: Workload) -> None:
        """As `Bench.load`. Raises WorkloadFailure when it does not load."""
        self._workload = None
        self._answer_or_restart("load", workload)
        self._workload = workload

    def race(self, plans: Sequence[Plan], rounds: int, seed: int) -> dict[Plan, Samples]:
        """As `Bench.race`; also raises PlanFailure of kind ``timed out`` or ``died``."""
        result: dict[Plan, Samples] = self._with_second_try("race", tuple(plans), rounds, seed)
        return result

    def verify(self, plan: Plan) -> None:
        """As `Bench.verify`, with the failures that `race` adds."""
        self._with_second_try("verify", plan)

    def close(self) -> None:
        """End the worker. It has nothing to save, and an orderly end of torch takes a second."""
        self._kill()

    def _with_second_try(self, name: str, *arguments: Any) -> Any:
        """Ask about plans, again in a new worker where the first failure may be no plan's doing.

        SIGKILL is an operator's or the kernel's doing, a time-out may be the machine's: the plan
        under way is to blame only when it happens twice. Nor is a plan to blame for a worker that
        ended or hung before the plan's turn came.

        Raises:
            PlanFailure: the plan to blame has failed.
            WorkloadFailure: two workers ended before any plan's turn.
            EnvironmentFailure: somebody keeps ending the workers.
        """
        excused, from_outside = False, 0
        while True:
            try:
                return self._ask(name, *arguments)
            except PlanFailure as failure:
                if failure.kind not in {"died", "timed out"}:
                    raise
                by_signal = self._ended_by if failure.kind == "died" else ""
                if by_signal in FROM_OUTSIDE:
                    from_outside += 1
                    if from_outside == self.ATTEMPTS_FROM_OUTSIDE:
                        raise EnvironmentFailure(
                            f"the worker was ended by {by_signal} {from_outside} times",
                            remedy="finished trials are kept; run the same command again",
                        ) from None
                    continue
                excusable = failure.kind == "timed out" or by_signal == "SIGKILL"
                if excused and failure.plan is None:
                    raise WorkloadFailure(
                        f"the worker ended twice before any plan ran: {failure.what}",
                        remedy=f"see {self.log}",
                    ) from None
                if excused or not (excusable or failure.plan is None):
                    raise
                excused = True

    def _answer_or_restart(self, name: str, *arguments: Any) -> Any:
        """Ask for something that blames no plan, once more in a new worker if the first dies.

        Raises:
            WorkloadFailure: refused, or two workers ended over it.
        """
        try:
            return self._ask(name, *arguments)
        except PlanFailure as failure:
            if failure.kind not in {"died", "timed out"}:
                raise WorkloadFailure(f"cannot {name}: {failure.what}") from None
        try:
            return self._ask(name, *arguments)
        except PlanFailure as failure:
            raise WorkloadFailure(
                f"the worker ended twice when asked to {name}: {failure.what}",
                remedy=f"see {self.log}",
            ) from None

    def _ask(self, name: str, *arguments: Any) -> Any:
        """Send one request and wait for its answer, keeping to the limit of each step."""
        if self._connection is None:
            self._replace()
            if self._setup is not None and name not in {"open", "free_bytes", "device_identity"}:
                self._ask("open", self._setup)
                if self._workload is not None:
                    self._ask("load", self._workload)
        connection = self._connection
        assert connection is not None
        try:
            return self._awaited(connection, (name, arguments))
        except KeyboardInterrupt:
            self._kill()
            raise

    def _replace(self) -> None:
        """Start a new worker, for which the SM clock has to be locked where the run found it.

        A GPU that is hot from the work before shows no lock for a while, so one look is not enough
        to end a night's run. Where the driver has stopped answering, nothing says that it changed.

        Raises:
            EnvironmentFailure: it is not; or no worker starts.
        """
        before_mhz = now_mhz = self.environment.locked_sm_clock_mhz
        for _ in range(self.START_ATTEMPTS):
            found = self._started()
            now_mhz = found.locked_sm_clock_mhz
            is_silent = found.unwatched is not None and self.environment.unwatched is None
            if is_same_lock(before_mhz, now_mhz) or is_silent:
                return
            self._kill()
            time.sleep(self.CLOCK_PAUSE_S)
        raise changed_clock(before_mhz, now_mhz)

    def _awaited(self, connection: Connection, request: Any = None) -> Any:
        """Send ``request``, if there is one, and wait for the answer to it."""
        plan: Plan | None = None
        limit_s = self._limits.open_s
        while True:
            try:
                if request is not None:
                    connection.send(request)
                    request = None
                pid = self._process.pid
                if not self.clock.wait(connection.poll, limit_s, partial(is_stopped, pid)):
                    self._kill()
                    raise _blamed(plan, "timed out", f"no answer within {limit_s:g} s")
                kind, *content = connection.recv()
            except (EOFError, ConnectionError):
                self._ended_by = self._exit_cause()
                self._kill()
                raise _blamed(plan, "died", f"the worker ended ({self._ended_by})") from None
            if kind == "step":
                plan, step = content
                limit_s = self._limits.of(step)
            elif kind == "done":
                return content[0]
            else:
                error, healthy = content
                if not healthy:
                    self._kill()
                raise error

    def _exit_cause(self) -> str:
        self._process.join(timeout=5)
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:  # a real-time signal
            return f"signal {-code}"

    def _started(self) -> Environment:
        """Start a worker and return what it found itself on."""
        problem = ""
        for _ in range(self.START_ATTEMPTS):
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(
                target=serve,
                args=(theirs, self.device, str(self.log), self._factory, os.getpid()),
                daemon=True,
            )
            with _signals_held(), _without_script():
                self._process.start()
            theirs.close()
            self.restarts += 1
            try:
                self.device, environment = self._awaited(self._connection)
                return cast("Environment", environment)
            except PlanFailure as failure:
                problem = failure.what
                time.sleep(0.5)
        raise EnvironmentFailure(
            f"no worker starts on {self.device}: {problem}", remedy=f"see {self.log}"
        )

    def _kill(self) -> None:
        if self._process is not None and self._process.is_alive():
            self._process.kill()
            self._process.join(timeout=10)
        if self._connection is not None:
            self._connection.close()
        self._connection = None


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let a child start with the signals blocked that it is going to ignore.

    It takes a second of imports before it can say so.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _without_script() -> Iterator[None]:
    """Let a child start without importing the script that started this process.

    The worker has no use for it. A script that calls `mla_tune.tune` at its top level would call it
    again in the worker, and one that has a model on the GPU would load another beside the plans.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _blamed(plan: Plan | None, kind: str, what: str) -> PlanFailure:
    failure = PlanFailure(what, kind=kind)
    failure.plan = plan
    return failure
