"""Measuring that ends: its process is stopped when the time is over, and keeps what is decided."""

__all__ = ["compare_until", "tune_until"]

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from mla_tune.serving.compare_request import CompareAnswer, CompareRequest
from mla_tune.serving.message import Message
from mla_tune.serving.tune_request import TuneAnswer, TuneRequest

MODULE = "mla_tune.serving.tune_main"
COMPARING = "mla_tune.serving.compare_main"

STOP_S = 3.0
"""From asking it to stop to its end: it writes what is decided, and ends its worker."""

TIME_OVER = "the time was over"

AnswerT = TypeVar("AnswerT", TuneAnswer, CompareAnswer)


def tune_until(
    request: TuneRequest, deadline_s: float, clock: Callable[[], float] = time.monotonic
) -> TuneAnswer:
    """Tune until it is done, or until ``deadline_s`` of ``clock`` at the latest.

    KeyboardInterrupt, or what a handler of another signal raises, stops it in the same way.
    """
    return _until(TuneAnswer, "tuning", MODULE, request, deadline_s, clock)


def compare_until(
    request: CompareRequest, deadline_s: float, clock: Callable[[], float] = time.monotonic
) -> CompareAnswer:
    """Compare backends; as `tune_until`, but nothing is decided before the end."""
    return _until(CompareAnswer, "comparing", COMPARING, request, deadline_s, clock)


def _until(
    kind: type[AnswerT],
    what: str,
    module: str,
    request: Message,
    deadline_s: float,
    clock: Callable[[], float],
) -> AnswerT:
    answer, problem = _answered(what, module, request.as_json(), deadline_s, clock)
    if answer:
        with contextlib.suppress(ValueError):
            return kind.from_json(answer)
    return kind(problem=problem)


def _answered(
    what: str, module: str, request: str, deadline_s: float, clock: Callable[[], float]
) -> tuple[bytes, str]:
    """What a process of ``module`` answers, and how it ended where that is nothing."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as answers:
        try:
            process = _started(module, request, write)
        except OSError as error:
            return b"", f"{what} cannot be started: {error.strerror or error}"
        finally:
            os.close(write)
        try:
            is_over = _waited(process, deadline_s - STOP_S - clock())
        finally:
            _stop(process)
        return answers.read(), _how_it_ended(what, process.returncode, is_over=is_over)


def _started(module: str, request: str, file: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", module, str(file), request],
        stdin=subprocess.PIPE,  # never written to: see tune_main
        stdout=sys.stderr.fileno(),
        pass_fds=[file],
        start_new_session=True,
    )


def _waited(process: "subprocess.Popen[bytes]", timeout_s: float) -> bool:
    """Whether the time was over before its end."""
    try:
        process.wait(max(timeout_s, 0))
    except subprocess.TimeoutExpired:
        return True
    return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End it and all that it has started: the engine to come needs the GPU's memory."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _how_it_ended(what: str, code: int, *, is_over: bool) -> str:
    if is_over:
        return TIME_OVER
    if code < 0:
        return f"{what} was ended by {signal.Signals(-code).name}"
    return f"{what} ended with exit code {code}"
