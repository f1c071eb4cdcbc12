"""The process that compiles Triton kernels ahead, with a child for each.

The children are forked from a process that has imported the kernels, so that each costs
milliseconds, and that sees no GPU, so that there is no CUDA context to be forked.
"""

__all__ = ["CompilerProcess", "Outcome", "serve_compiling"]

import contextlib
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from multiprocessing.connection import Connection, wait
from typing import Any

from mla_tune.vllm.triton_compile import KernelCall, compiled

STEP_S = 0.2
"""How long to wait at a time; a step that took longer was not waiting, but stopped."""

START_S = 120.0
"""How long the process may take to import vLLM's kernels."""

BYTES_EACH = 1 << 30
"""Memory that a compilation may take, so that there are not too many at once."""


class Outcome(StrEnum):
    """What became of a compilation."""

    COMPILED = "compiled"
    FOUND = "found"
    """Triton's cache had it."""
    REFUSED = "refused"
    """The compiler raised. Who measures finds that out again, with the launch's own words."""
    ENDED = "ended"
    """A signal ended the compiler."""
    HUNG = "hung"


def serve_compiling(descriptor: int) -> None:
    """Compile what is asked for, until the other end of the connection is closed.

    Asked for with a module to import, or with ``(calls, target, limit_s, processes)``. Answered, as
    each is done, with ``(number, outcome, text)``.
    """
    connection = Connection(descriptor)
    with contextlib.suppress(EOFError, BrokenPipeError):
        importlib.import_module(connection.recv())
        _hash_triton()
        while True:
            calls, target, limit_s, processes = connection.recv()
            for answer in _answers(calls, target, limit_s, processes):
                connection.send(answer)


def _hash_triton() -> None:
    """Have Triton hash itself, some hundred megabytes, once and not in each child."""
    for module in ("triton.runtime.cache", "triton.compiler.compiler"):
        with contextlib.suppress(ImportError, AttributeError):
            importlib.import_module(module).triton_key()
            return


def _answers(
    calls: Sequence[KernelCall], target: Any, limit_s: float, processes: int
) -> Iterator[tuple[int, Outcome, str]]:
    waiting = list(enumerate(calls))[::-1]
    running: dict[int, _Child] = {}
    while waiting or running:
        while waiting and len(running) < processes:
            number, call = waiting.pop()
            running[number] = _Child(call, target, limit_s)
        began = time.monotonic()
        wait([child.sentinel for child in running.values()], STEP_S)
        # Time in which this process was stopped does not count.
        ran_s = min(time.monotonic() - began, 2 * STEP_S)
        for number, child in list(running.items()):
            answer = child.answer(ran_s)
            if answer is not None:
                del running[number]
                yield (number, *answer)


class _Child:
    """A process that compiles one kernel."""

    def __init__(self, call: KernelCall, target: Any, limit_s: float) -> None:
        self._left_s = limit_s
        self._limit_s = limit_s
        context = multiprocessing.get_context("fork")
        self._answer, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_compile, args=(call, target, theirs), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def sentinel(self) -> int:
        return self._process.sentinel

    def answer(self, ran_s: float) -> tuple[Outcome, str] | None:
        """What became of it after ``ran_s`` seconds more; None: nothing yet."""
        self._left_s -= ran_s
        if self._process.is_alive():
            if self._left_s > 0:
                return None
            self._process.kill()
            self._process.join()
            return Outcome.HUNG, f"the compiler took more than {self._limit_s:g} s"
        with contextlib.suppress(EOFError):
            found: tuple[Outcome, str] = self._answer.recv()
            return found
        return Outcome.ENDED, f"the compiler ended ({_cause(self._process.exitcode)})"


def _compile(call: KernelCall, target: Any, connection: Connection) -> None:
    try:
        is_new = compiled(call, target)
        connection.send((Outcome.COMPILED if is_new else Outcome.FOUND, ""))
    except Exception as error:
        connection.send((Outcome.REFUSED, f"{type(error).__name__}: {error}"))
    # An orderly end of torch takes longer than the compilation.
    os._exit(0)


def _cause(code: int | None) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(-(code or 0)).name
    return f"exit code {code}"


class CompilerProcess:
    """The process that compiles, as the one that measures sees it.

    It starts at once, and imports while the other goes on.

    Args:
        module: where the kernels are.
    """

    def __init__(self, module: str) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        descriptor = theirs.fileno()
        code = f"from {__name__} import serve_compiling; serve_compiling({descriptor})"
        # An empty list lets vLLM keep Triton where there is no GPU, and there is none to be used.
        unseen = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            pass_fds=(descriptor,),
            env={**os.environ, **unseen},
        )
        theirs.close()
        self._connection.send(module)
        self._is_gone = False

    def compile(
        self,
        calls: Sequence[KernelCall],
        target: Any,
        limit_s: float,
        alive: Callable[[], None],
    ) -> dict[KernelCall, tuple[Outcome, str]]:
        """What became of each of ``calls``; of none from where the process has ended or hangs.

        Args:
            calls: all different.
            target: as of `active_target`.
            limit_s: seconds for one of them.
            alive: called several times a second.
        """
        if self._is_gone:
            return {}
        done: dict[KernelCall, tuple[Outcome, str]] = {}
        left_s = START_S + limit_s
        try:
            self._connection.send((tuple(calls), target, limit_s, _at_once(len(calls))))
            while len(done) < len(calls) and left_s > 0:
                alive()
                if not self._connection.poll(STEP_S):
                    left_s -= STEP_S
                    continue
                number, outcome, text = self._connection.recv()
                done[calls[number]] = outcome, text
                left_s = START_S + limit_s
        except (EOFError, OSError):
            left_s = 0.0
        if left_s <= 0:
            self.close()
        return done

    def close(self) -> None:
        """End the process."""
        self._is_gone = True
        self._connection.close()
        self._process.kill()
        self._process.wait()


def _at_once(most: int) -> int:
    """How many compilations to run side by side: by cores and free memory."""
    import psutil

    cores, free = len(os.sched_getaffinity(0)), psutil.virtual_memory().available
    return max(1, min(most, cores, free // BYTES_EACH))
