"""The killable process that owns one device and its session.

A plan that raises, hangs, exhausts memory, ends the process or corrupts the CUDA context takes
this process with it and nothing else: the bench on this side says which plan it was, and
starts another process for the next question.
"""

__all__ = ["Limits", "WorkerBench"]

import contextlib
import ctypes
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from mla_tune.backends.interface import Setup
from mla_tune.bench import Announce, Bench, SessionBench
from mla_tune.environment import Environment, probe
from mla_tune.errors import EnvironmentFailure, MlaTuneError, PlanFailure, WorkloadFailure
from mla_tune.knobs import Plan, PlanSpace
from mla_tune.measure import Samples
from mla_tune.shapes import BatchShape, Workload

BenchFactory = Callable[[Environment, Announce], Bench]
"""Makes the bench inside the worker; importable by name, since it crosses a process."""

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Limits:
    """Seconds that a step of a plan may take before its worker is killed.

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

    def __init__(
        self,
        device: str,
        log: Path,
        limits: Limits = Limits(),
        factory: BenchFactory = SessionBench,
    ) -> None:
        self.device = device
        self._log = log
        self._limits = limits
        self._factory = factory
        self._process: Any = None
        self._connection: Connection | None = None
        self._setup: Setup | None = None
        self._workload: Workload | None = None
        self._ended_by = ""
        self.restarts = -1
        self.environment = self._started()

    def free_bytes(self) -> int:
        """Memory free for a session on the device."""
        return int(self._ask("free_bytes"))

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
        result: dict[Plan, Samples] = self._twice_if_killed("race", tuple(plans), rounds, seed)
        return result

    def verify(self, plan: Plan) -> None:
        """As `Bench.verify`, with the failures that `race` adds."""
        self._twice_if_killed("verify", plan)

    def close(self) -> None:
        """End the worker. It has nothing to save, and an orderly end of torch takes a second."""
        self._kill()

    def _twice_if_killed(self, name: str, *arguments: Any) -> Any:
        """Ask again in a new worker after SIGKILL: that is an operator's or the kernel's doing.

        The plan under way is to blame only when it happens twice. Nor is a plan to blame for a
        worker that was gone before the plan's turn came.
        """
        try:
            return self._ask(name, *arguments)
        except PlanFailure as failure:
            no_fault = self._ended_by == "SIGKILL" or failure.plan is None
            if failure.kind != "died" or not no_fault:
                raise
            return self._ask(name, *arguments)

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
                remedy=f"see {self._log}",
            ) from None

    def _ask(self, name: str, *arguments: Any) -> Any:
        """Send one request and wait for its answer, keeping to the limit of each step."""
        if self._connection is None:
            self._started()
            if self._setup is not None and name not in {"open", "free_bytes"}:
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

    def _awaited(self, connection: Connection, request: Any = None) -> Any:
        """Send ``request``, if there is one, and wait for the answer to it."""
        plan: Plan | None = None
        limit_s = self._limits.open_s
        while True:
            try:
                if request is not None:
                    connection.send(request)
                    request = None
                if not connection.poll(limit_s):
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
        if code is not None and code < 0:
            return signal.Signals(-code).name
        return f"exit code {code}"

    def _started(self) -> Environment:
        """Start a worker and return what it found itself on."""
        problem = ""
        for _ in range(self.START_ATTEMPTS):
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(
                target=_serve,
                args=(theirs, self.device, str(self._log), self._factory, os.getpid()),
                daemon=True,
            )
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
            f"no worker starts on {self.device}: {problem}", remedy=f"see {self._log}"
        )

    def _kill(self) -> None:
        if self._process is not None and self._process.is_alive():
            self._process.kill()
            self._process.join(timeout=10)
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _blamed(plan: Plan | None, kind: str, what: str) -> PlanFailure:
    failure = PlanFailure(what, kind=kind)
    failure.plan = plan
    return failure


def _serve(
    connection: Connection, device: str, log: str, factory: BenchFactory, parent_pid: int
) -> None:
    """The worker's life: answer requests until the other side is gone."""
    _die_with(parent_pid)
    _redirect_output(Path(log))
    try:
        device = _resolved(device)
        if device == "cpu":
            _bound_memory()
        environment = probe(device)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        connection.send(("failed", EnvironmentFailure(f"device {device}: {problem}"), False))
        return

    def announce(plan: Plan, step: str) -> None:
        connection.send(("step", plan, step))

    bench = factory(environment, announce)
    connection.send(("done", (device, environment)))
    while True:
        try:
            name, arguments = connection.recv()
        except EOFError:
            return
        try:
            if name == "free_bytes":
                result: Any = _free_bytes(device)
            else:
                result = getattr(bench, name)(*arguments)
            connection.send(("done", result))
        except MlaTuneError as error:
            traceback.print_exc()
            connection.send(("failed", error, _is_intact(error, device)))
        except Exception as error:
            traceback.print_exc()
            text = f"{type(error).__name__}: {error}"
            failure = WorkloadFailure(f"cannot {name}: {text}", remedy=f"see {log}")
            connection.send(("failed", failure, False))


def _die_with(parent_pid: int) -> None:
    """End with the parent even while a kernel hangs, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            os._exit(1)


def _resolved(device: str) -> str:
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _redirect_output(log: Path) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def _bound_memory() -> None:
    """Let an allocation beyond what is free now fail here, before the kernel kills at random."""
    free = _free_bytes("cpu")
    resource.setrlimit(resource.RLIMIT_DATA, (free, resource.RLIM_INFINITY))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _free_bytes(device: str) -> int:
    if device == "cpu":
        import psutil

        return int(psutil.virtual_memory().available)
    import torch

    return int(torch.cuda.mem_get_info(torch.device(device))[0])


def _is_intact(error: MlaTuneError, device: str) -> bool:
    """Whether this process can go on after ``error``.

    A CUDA error in a kernel fails everything after it. A wrong result may come from a write out
    of bounds, which spoils the inputs of other plans too: TRITON_MLA of vLLM 0.26 with 128 heads,
    128 requests and 256 splits writes beyond 8 GiB of workspace without any error.
    """
    if isinstance(error, PlanFailure) and error.kind == "wrong result":
        return False
    if device == "cpu":
        return True
    import torch

    try:
        torch.cuda.synchronize(torch.device(device))
        torch.cuda.empty_cache()
        return bool(torch.ones(1, device=device).item() == 1)
    except RuntimeError:
        return False
