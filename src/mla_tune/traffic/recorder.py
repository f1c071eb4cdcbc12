"""``MLA_TUNE_RECORD``: a histogram of the steps an engine served, one file a process."""

__all__ = ["Recorder"]

import atexit
import functools
import json
import multiprocessing.util
import os
import platform
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mla_tune.files.regular_file import fresh_beside
from mla_tune.table import DEFAULT_WITHIN
from mla_tune.table.matching import EngineFacts
from mla_tune.traffic.record import RECORD_FORMAT
from mla_tune.traffic.served import Kind, Served, kv_bucket_start, size_bucket
from mla_tune.vllm.log import logger

SECONDS_BETWEEN_WRITES = 30.0

# Formatting thousands of kinds takes milliseconds in which the thread that builds steps would
# have to ask for the interpreter's lock and wait; so it is given up every so many kinds.
_KINDS_BETWEEN_PAUSES = 64
_PAUSE_S = 0.0002

# A disk that hangs may not hold up the end of the engine.
_LONGEST_WAIT_AT_EXIT_S = 5.0


class Recorder:
    """Counts steps by kind; a thread of its own writes them down every half minute, and the exit.

    Files are named after the host, the process and its start, so that neither tensor-parallel
    workers nor restarted containers overwrite each other. Whatever fails in here is said once,
    and costs the record alone.

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
        """What a process has for itself; a forked one keeps none of its parent's."""
        self._path: Path | None = None
        self._recent = Served()
        self._served = Served()
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
            self._add_parts(mode, outcome, batch, metadata)
        except Exception as error:
            self._is_broken = True
            logger.warning("mla-tune: recording ends here: %s: %s", type(error).__name__, error)

    def _add_parts(self, mode: str, outcome: str, batch: Any, metadata: Any) -> None:
        bound = batch.seq_lens_cpu_upper_bound
        if bound is None:
            return
        lens = bound.numpy()
        rows = min(metadata.num_reqs, len(lens))
        decodes = min(metadata.num_decodes, rows)
        decode_tokens = metadata.num_decode_tokens
        if decodes:
            self._add_part(mode, outcome, lens[:decodes], decode_tokens)
        if decodes < rows:
            new_tokens = batch.num_actual_tokens - decode_tokens
            self._add_part(mode, outcome, lens[decodes:rows], new_tokens)

    def _add_part(self, mode: str, outcome: str, lens: Any, new_tokens: int) -> None:
        """Count requests with KV lengths ``lens`` that bring ``new_tokens`` among them."""
        query_len = new_tokens // len(lens)
        # Rows that pad a batch to a graph's size have length 0: in V1 and V2 of vLLM 0.20.2,
        # 0.26.0, 0.32.0 and 0.33.0.
        requests = int(np.count_nonzero(lens))
        longest = int(np.maximum.reduce(lens))
        # Dummy batches, of a warm-up or an idle data-parallel rank, have no context.
        shortest_real = query_len if mode == "graph" else 1
        if query_len < 1 or longest <= shortest_real:
            return
        self.add(mode, outcome, len(lens), query_len, int(np.add.reduce(lens)), longest, requests)

    def add(
        self,
        mode: str,
        outcome: str,
        batch: int,
        query_len: int,
        kv_total: int,
        longest_kv_len: int,
        requests: int | None = None,
    ) -> None:
        """Count one step.

        Args:
            mode, outcome: as of `add_step`.
            batch: rows; in graph mode the size that was captured.
            query_len: new tokens a row.
            kv_total: KV lengths of all requests, summed.
            longest_kv_len: of the longest request.
            requests: rows that are requests and no padding; None: all of them.
        """
        requests = batch if requests is None else requests
        mean = max(query_len, kv_total // requests)
        if mode == "eager":
            # No entry speaks for a batch with one request far above the mean (`StepChoices`).
            if longest_kv_len * requests > DEFAULT_WITHIN * kv_total:
                outcome = "skewed"
            elif outcome == "skewed":
                outcome = "mixed"  # it is the other part of the step that is
            batch, query_len = size_bucket(requests), kv_bucket_start(query_len)
        kind = Kind(
            mode, outcome, batch, query_len, kv_bucket_start(mean), kv_bucket_start(longest_kv_len)
        )
        if self._path is None:
            self._start()
        with self._counting:
            self._recent.add(kind, requests)

    def _start(self) -> None:
        """Begin to write, in the process that counts: not every one that loads us serves."""
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
                recent, self._recent = self._recent, Served()
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
            logger.warning("mla-tune: record %s cannot be written: %s", self._path, error)

    def _replace(self, path: Path) -> None:
        handle, scratch = fresh_beside(path)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                for number, line in enumerate(self._lines()):
                    file.write(line)
                    if number % _KINDS_BETWEEN_PAUSES == 0:
                        self._ended.wait(_PAUSE_S)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise

    def _lines(self) -> Iterator[str]:
        """The file, one kind a line."""
        facts, served = self._facts, self._served
        head = {
            "format": RECORD_FORMAT,
            "backend": facts.backend,
            "model": dict(facts.model),
            "kv_cache_dtype": facts.kv_cache_dtype,
            "max_model_len": facts.max_model_len,
            "quantization": facts.quantization,
            "block_size": facts.block_size,
            "max_cudagraph_capture_size": facts.max_cudagraph_capture_size,
            "device": facts.device_name,
            "vllm": facts.vllm,
        }
        others = [
            {"mode": mode, "outcome": outcome, "count": count}
            for (mode, outcome), count in served.others.most_common()
        ]
        yield json.dumps(head)[:-1] + f', "others": {json.dumps(others)}, "steps": [\n'
        for number, kind in enumerate(served.most_served()):
            steps, requests = served.counts[kind]
            row = {**kind._asdict(), "count": steps, "requests": requests}
            yield (",\n" if number else "") + json.dumps(row)
        yield "\n]}\n"


def _begin_anew(recorder: "weakref.ref[Recorder]") -> None:
    """In a forked child: the parent's counts are the parent's, and so are its locks."""
    alive = recorder()
    if alive is not None:
        alive._begin_anew()
