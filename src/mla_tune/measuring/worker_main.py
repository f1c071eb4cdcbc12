"""The worker's own side: the process that answers for one device until it is killed."""

__all__ = ["IGNORED_SIGNALS", "BenchFactory", "serve", "serve_later"]

import contextlib
import ctypes
import errno
import importlib
import io
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mla_tune.device.choice import device_identity, resolved_device
from mla_tune.device.driver import GpuDriver
from mla_tune.device.facts import with_gpu_facts
from mla_tune.environment import Environment, probe
from mla_tune.errors import (
    DeviceLost,
    EnvironmentFailure,
    InputError,
    MlaTuneError,
    WorkloadFailure,
)
from mla_tune.files.own_file import open_own
from mla_tune.measuring.bench import Announce, Bench
from mla_tune.measuring.capture import CaptureLost
from mla_tune.measuring.throttle import locked_clock_of
from mla_tune.plan.failure import FailureKind, PlanFailure
from mla_tune.plan.plan import Plan
from mla_tune.registry import BACKENDS

BenchFactory = Callable[[Environment, Announce], Bench]
"""Makes the bench inside the worker; importable by name, since it crosses a process."""

PR_SET_PDEATHSIG = 1

IGNORED_SIGNALS = (signal.SIGHUP, signal.SIGINT)
"""Sent to all processes of a terminal that closes, or by Ctrl-C: the parent decides what to do."""


def serve_later(
    ahead: Sequence[str],
    connection: Connection,
    device: str,
    log: str,
    factory: BenchFactory,
    parent_pid: int,
) -> None:
    """As `serve`, from the first request on, which says only that.

    Until then this process imports ``ahead``, as far as they are there: a session says what is
    missing. It asks nothing of the device, on which another one measures.
    """
    _begin(parent_pid)
    with contextlib.suppress(InputError):  # `serve` finds it again, and answers with it
        _redirect_output(Path(log))
    for name in ahead:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    with contextlib.suppress(EOFError):
        connection.recv()
        serve(connection, device, log, factory, parent_pid)


def serve(
    connection: Connection, device: str, log: str, factory: BenchFactory, parent_pid: int
) -> None:
    """Answer the parent's requests until its end of the connection is closed."""
    _begin(parent_pid)
    try:
        _redirect_output(Path(log))
        device = resolved_device(device)
        if device == "cpu":
            _bound_memory()
        environment = _looked_at(device)
    except InputError as error:
        connection.send(("failed", error, False))
        return
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        connection.send(("failed", DeviceLost(f"device {device}: {problem}"), False))
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
            elif name == "device_identity":
                result = device_identity(device)
            else:
                result = getattr(bench, name)(*arguments)
            connection.send(("done", result))
        except MlaTuneError as error:
            traceback.print_exc()
            connection.send(("failed", _cause_on_disk(error) or error, _is_intact(error, device)))
        except Exception as error:
            traceback.print_exc()
            text = f"{type(error).__name__}: {error}"
            failure = WorkloadFailure(f"cannot {name}: {text}", remedy=f"see {log}")
            connection.send(("failed", failure, False))


def _looked_at(device: str) -> Environment:
    """What this process finds itself on, the GPU's clocks included."""
    digests = {name: told for backend in BACKENDS for name, told in backend.digests().items()}
    environment = replace(probe(device), digests=digests)
    if device == "cpu":
        return environment
    import torch

    gpu = torch.device(device)
    return with_gpu_facts(environment, partial(GpuDriver.of, gpu), partial(locked_clock_of, gpu))


def _begin(parent_pid: int) -> None:
    """Settle what becomes of this process, and keep its imports from starting others.

    humming, which vLLM imports for quantized weights, starts two builds in the background at each
    import, 12 s of a core each, beside a start that waits for the imports or a plan that is
    measured. What a session needs of it is built when it is used.
    """
    _die_with(parent_pid)
    os.environ.setdefault("HUMMING_DISABLE_PARALLEL_BUILD", "1")


def _die_with(parent_pid: int) -> None:
    """End with the parent even while a kernel hangs, and leave the terminal's signals to it."""
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED_SIGNALS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            os._exit(1)


def _redirect_output(log: Path) -> None:
    """Send what this process prints to ``log``, or nowhere when the disk is full.

    A plan must not fail, nor the worker end, because its traceback finds no room.
    """
    handle = open_own(log, os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(handle, number)
    os.close(handle)
    sys.stdout = _lossy_text(1)
    sys.stderr = _lossy_text(2)


class _LossyFile(io.FileIO):
    """A file to which writing always succeeds; what finds no room is dropped."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


def _lossy_text(number: int) -> io.TextIOWrapper:
    buffer = io.BufferedWriter(_LossyFile(number, "w", closefd=False))
    return io.TextIOWrapper(buffer, "utf-8", errors="backslashreplace", line_buffering=True)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and all that led to it, each once: causes may go in a circle."""
    cause: BaseException | None = error
    seen: list[BaseException] = []
    while cause is not None and cause not in seen:
        yield cause
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__


def _cause_on_disk(error: BaseException) -> EnvironmentFailure | None:
    """The full disk that a plan's failure comes from, such as under a compiler's cache."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" {cause.filename}" if cause.filename else ""
            return EnvironmentFailure(
                f"no room to write{where}: {cause.strerror}",
                remedy="make room; finished trials are kept, run the same command again",
            )
    return None


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
    if any(isinstance(cause, CaptureLost) for cause in _causes(error)):
        return False
    if isinstance(error, PlanFailure) and error.kind is FailureKind.WRONG_RESULT:
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
