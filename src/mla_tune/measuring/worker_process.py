"""One worker process as its parent sees it: its start, the wait for an answer, and its end."""

__all__ = ["Limits", "WorkerDied", "WorkerLost", "WorkerProcess", "WorkerTimeout"]

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from mla_tune.environment import Environment
from mla_tune.errors import MlaTuneError
from mla_tune.measuring.running_clock import RunningClock, is_stopped
from mla_tune.measuring.worker_main import IGNORED_SIGNALS, BenchFactory, serve, serve_later
from mla_tune.plan.failure import FailureKind
from mla_tune.plan.plan import Plan

_START = threading.Lock()
"""Held while ``__main__`` is put aside; a run on several devices starts workers side by side."""


@dataclass(frozen=True)
class Limits:
    """Seconds that a step of a plan may take before its worker is killed.

    Only time in which this process and the worker ran counts; see `RunningClock`.
    ``warm_up_s`` holds compilation and graph capture, ``open_s`` the imports and the session. A
    rest takes none of a plan's time.
    """

    sample_s: float = 30.0
    warm_up_s: float = 180.0
    open_s: float = 600.0

    def of(self, step: str) -> float:
        """The limit of an announced step."""
        return {"sample": self.sample_s, "rest": self.open_s}.get(step, self.warm_up_s)


class WorkerLost(MlaTuneError):
    """A worker that ended, or had to be killed, before it answered.

    Args:
        what: what happened to it.
        plan: the plan whose turn it was; None where no plan's turn had come.
    """

    kind: FailureKind
    """What a failure of the plan is filed under."""

    def __init__(self, what: str, plan: Plan | None) -> None:
        super().__init__(what)
        self.plan = plan


class WorkerDied(WorkerLost):
    """The worker ended; ``cause`` is the signal's name, such as ``SIGSEGV``, or the exit code."""

    kind = FailureKind.DIED

    def __init__(self, cause: str, plan: Plan | None) -> None:
        super().__init__(f"the worker ended ({cause})", plan)
        self.cause = cause


class WorkerTimeout(WorkerLost):
    """A step took longer than ``limit_s`` seconds, and its worker was killed."""

    kind = FailureKind.TIMED_OUT

    def __init__(self, limit_s: float, plan: Plan | None) -> None:
        super().__init__(f"no answer within {limit_s:g} s", plan)
        self.limit_s = limit_s


class WorkerProcess:
    """A process that has found its device and answers one request at a time.

    Args:
        device: as of `resolved_device`.
        log: where its own output goes.
        limits: how long a step may take.
        factory: makes the bench in it.
        clock: measures the waits.
        ahead: modules that a spare imports until it may `begin`; None for no spare, which has begun
            once it is made.

    Attributes:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        environment: what the process found itself on.
        is_gone: whether it has ended; it answers nothing any more.

    Raises:
        WorkerLost: it did not come up.
        InputError: the device is not there.
        EnvironmentFailure: the device cannot be used.
    """

    def __init__(
        self,
        device: str,
        log: Path,
        limits: Limits,
        factory: BenchFactory,
        clock: RunningClock,
        ahead: Sequence[str] | None = None,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self.is_gone = False
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=serve if ahead is None else partial(serve_later, ahead),
            args=(theirs, device, str(log), factory, os.getpid()),
            daemon=True,
        )
        with _signals_held(), _START, _without_script():
            self._process.start()
        theirs.close()
        if ahead is None:
            self._find(None)

    def begin(self) -> None:
        """Have a spare find its device. Raises as the start of any other."""
        self._find(("begin", ()))

    def _find(self, request: tuple[str, tuple[Any, ...]] | None) -> None:
        found: tuple[str, Environment] = self._answer(request)
        self.device, self.environment = found

    @property
    def pid(self) -> int:
        pid = self._process.pid
        assert pid is not None, "it is started"
        return pid

    def ask(self, name: str, *arguments: Any) -> Any:
        """Send one request and wait for its answer, keeping to the limit of each step.

        Raises:
            WorkerLost: the process ended, or a step took too long.
            MlaTuneError: what the bench raised.
        """
        return self._answer((name, arguments))

    def kill(self) -> None:
        """End the process. It has nothing to save, and an orderly end of torch takes a second."""
        if self._process.is_alive():
            self._process.kill()
            self._process.join(timeout=10)
        self._connection.close()
        self.is_gone = True

    def end(self) -> None:
        """End the process from another thread than the one that waits for its answer."""
        self._process.kill()

    def _answer(self, request: tuple[str, tuple[Any, ...]] | None) -> Any:
        try:
            return self._awaited(request)
        except KeyboardInterrupt:
            self.kill()
            raise

    def _awaited(self, request: tuple[str, tuple[Any, ...]] | None) -> Any:
        plan: Plan | None = None
        limit_s = self._limits.open_s
        while True:
            try:
                if request is not None:
                    self._connection.send(request)
                    request = None
                stopped = partial(is_stopped, self.pid)
                if not self._clock.wait(self._connection.poll, limit_s, stopped):
                    self.kill()
                    raise WorkerTimeout(limit_s, plan)
                kind, *content = self._connection.recv()
            except (EOFError, ConnectionError):
                cause = self._exit_cause()
                self.kill()
                raise WorkerDied(cause, plan) from None
            if kind == "step":
                plan, step = content
                limit_s = self._limits.of(step)
            elif kind == "done":
                return content[0]
            else:
                error, healthy = content
                if not healthy:
                    self.kill()
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
