"""The writer of ``MLA_TUNE_RECORD``: counts the steps an engine serves, one file a process."""

__all__ = ["TrafficWriter"]

import atexit
import functools
import multiprocessing.util
import os
import platform
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from mla_tune.files.atomic_write import replacing
from mla_tune.table.matching import EngineFacts
from mla_tune.traffic.histogram import TrafficHistogram
from mla_tune.traffic.histogram_file import histogram_lines
from mla_tune.traffic.step_parts import StepPart, kind_of, parts_of
from mla_tune.vllm.log import logger

SECONDS_BETWEEN_WRITES = 30.0

# Formatting thousands of kinds takes milliseconds, and the thread that builds steps would wait for
# the interpreter's lock all that time. The writing thread releases it every so many kinds.
_KINDS_BETWEEN_PAUSES = 64
_PAUSE_S = 0.0002

# A disk that hangs may not hold up the end of the engine.
_LONGEST_WAIT_AT_EXIT_S = 5.0


class TrafficWriter:
    """Counts steps by kind, and writes the counts to a file every half minute and at exit.

    A thread of its own does the writing. Files are named after the host, the process and its
    start, so that neither tensor-parallel workers nor restarted containers overwrite each other.
    A failure in here is logged once and does not reach the engine.

    Args:
        base: the value of ``MLA_TUNE_RECORD``; files are named after it.
        facts: the engine.
    """

    def __init__(self, base: Path, facts: EngineFacts) -> None:
        self._base = base
        self._facts = facts
        self._begin_anew()
        os.register_at_fork(after_in_child=functools.partial(_begin_anew, weakref.ref(self)))

    def _begin_anew(self) -> None:
        """Set all that belongs to one process; a forked child calls this to drop its parent's."""
        self._path: Path | None = None
        self._recent = TrafficHistogram()
        self._served = TrafficHistogram()
        self._is_written = True
        self._has_complained = False
        self._is_broken = False
        # The first is held for an increment or a swap, the second while the file is written.
        self._counting = threading.Lock()
        self._writing = threading.Lock()
        self._ended = threading.Event()

    # In the thread that builds steps

    def add_step(self, mode: str, outcome: str, batch: Any, metadata: Any) -> None:
        """Count the decode part and the prefill part of a step, each as a kind of its own.

        Args:
            mode: ``graph`` for the replay of a captured graph, else ``eager``.
            outcome: what the tables said.
            batch: vLLM's CommonAttentionMetadata; only its CPU data is read.
            metadata: what was built from it.
        """
        if self._is_broken:
            return
        try:
            for part in parts_of(mode, batch, metadata, self._facts.context_parallel):
                self.add(mode, outcome, part)
        except Exception as error:
            self._is_broken = True
            logger.warning(
                "mla-tune: counting of served steps ends here: %s: %s", type(error).__name__, error
            )

    def add(self, mode: str, outcome: str, part: StepPart) -> None:
        """Count one part of a step; ``mode`` and ``outcome`` as of `add_step`."""
        kind = kind_of(mode, outcome, part)
        if self._path is None:
            self._start()
        with self._counting:
            self._recent.add(kind, part.requests)

    def _start(self) -> None:
        """Start the writing thread at the first step: many processes load the plugin, few serve."""
        name = f"{self._base.name}.{platform.node()}.{os.getpid()}.{time.time_ns()}.json"
        self._path = self._base.parent / name
        atexit.register(self.close)
        # Forked engine processes end in os._exit, which skips atexit but not this.
        multiprocessing.util.Finalize(self, self.close, exitpriority=10)
        writer = threading.Thread(target=self._write_at_times, name="mla-tune-record", daemon=True)
        writer.start()

    # In the thread that writes, and at the end

    def _write_at_times(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_WRITES):
            self.write()

    def close(self) -> None:
        """Write a last time, and end the thread."""
        self._ended.set()
        atexit.unregister(self.close)
        self.write()

    def write(self) -> None:
        """Replace the file, if there is something new to say."""
        if not self._writing.acquire(timeout=_LONGEST_WAIT_AT_EXIT_S):
            return
        try:
            with self._counting:
                recent, self._recent = self._recent, TrafficHistogram()
            if recent.total:
                self._served.merge(recent)
                self._is_written = False
            if not self._is_written and self._path is not None:
                self._replace(self._path)
                self._is_written = True
        except Exception as error:
            self._complain(error)
        finally:
            self._writing.release()

    def _complain(self, error: Exception) -> None:
        """Say once that the file cannot be written; it is tried again when its time comes."""
        if not self._has_complained:
            self._has_complained = True
            logger.warning(
                "mla-tune: traffic histogram %s cannot be written: %s", self._path, error
            )

    def _replace(self, path: Path) -> None:
        with replacing(path) as file:
            for number, line in enumerate(histogram_lines(self._facts, self._served)):
                file.write(line)
                if number % _KINDS_BETWEEN_PAUSES == 0:
                    self._ended.wait(_PAUSE_S)


def _begin_anew(writer: "weakref.ref[TrafficWriter]") -> None:
    """In a forked child: drop the parent's counts and its locks, which may be held."""
    alive = writer()
    if alive is not None:
        alive._begin_anew()
