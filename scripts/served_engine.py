"""A whole vLLM engine in a process of its own, for `bench_engine.py`: start, ask, stop."""

import contextlib
import ctypes
import multiprocessing
import os
import time
from typing import Any

from engine_process import serve
from measured_engine import Settings


class ServedEngine:
    """The parent's end. ``ask`` names a method of `measured_engine.MeasuredEngine`."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self._log = settings.model / f"{name}.log"
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(settings, self._log, theirs))

    def __enter__(self) -> "ServedEngine":
        _make_processes_alike()
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Build the engine. One at a time: vLLM refuses when memory changes under its profiling.

        Imports are done by then where several processes were entered before the first start.
        """
        started = time.monotonic()
        self.facts = self.ask("start")
        print(f"{self.name} engine up after {time.monotonic() - started:.0f} s", flush=True)

    def stop(self) -> None:
        if self._process.is_alive():
            self.send("stop")
            self._process.join(timeout=60)
        if self._process.is_alive():
            self._process.terminate()

    def ask(self, what: str, **arguments: Any) -> Any:
        self.send(what, **arguments)
        return self.answer()

    def send(self, what: str, **arguments: Any) -> None:
        # Of a process that has died, the answer says why.
        with contextlib.suppress(ConnectionError):
            self._pipe.send((what, arguments))

    def answer(self) -> Any:
        while not self._pipe.poll(1.0):
            if not self._process.is_alive():
                break
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionError):
            answer = RuntimeError("its process died")
        if isinstance(answer, Exception):
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-40:])
            raise SystemExit(f"the {self.name} engine failed: {answer}\n{tail}")
        return answer

    def said(self) -> list[str]:
        """What the plugin has logged."""
        lines = self._log.read_text(errors="replace").splitlines()
        return [line[line.index("mla-tune:") :] for line in lines if "mla-tune:" in line]


ADDR_NO_RANDOMIZE = 0x0040000  # sys/personality.h


def _make_processes_alike() -> None:
    """Let every engine started from here have the same hashes and the same addresses.

    Where a step is bound by Python, two default engines differ by up to 6 % without (measured).
    """
    os.environ["PYTHONHASHSEED"] = "0"
    # As vLLM sets it for its worker processes; a pool of threads would crowd the pinned cores.
    os.environ["OMP_NUM_THREADS"] = "1"
    ctypes.CDLL(None).personality(ADDR_NO_RANDOMIZE)
