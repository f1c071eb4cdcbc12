"""``MLA_TUNE_RECORD``: a histogram of the steps an engine served, one file a process."""

__all__ = ["RECORD_FORMAT", "Recorder", "record_files"]

import atexit
import json
import multiprocessing.util
import os
import platform
import time
from collections import Counter
from pathlib import Path
from typing import Any

from mla_tune.runtime.log import logger
from mla_tune.runtime.lookups import kv_bucket
from mla_tune.runtime.matching import EngineFacts

RECORD_FORMAT = 1
SECONDS_BETWEEN_WRITES = 30.0
STEPS_BETWEEN_LOOKS = 64

# (mode, outcome, batch, query length, bucket of the mean KV length, bucket of the longest).
Step = tuple[str, str, int, int, int, int]


def record_files(path: Path) -> list[Path]:
    """The files that the processes of all runs with ``MLA_TUNE_RECORD=path`` have written."""
    own = [path] if path.is_file() else []
    return own + sorted(p for p in path.parent.glob(f"{path.name}.*.json") if p.is_file())


class Recorder:
    """Counts steps by shape, and writes them down every half minute and at exit.

    Files are named after the host, the process and its start, so that neither tensor-parallel
    workers nor restarted containers overwrite each other.
    """

    def __init__(self, base: Path, facts: EngineFacts) -> None:
        name = f"{base.name}.{platform.node()}.{os.getpid()}.{time.time_ns()}.json"
        self.path = base.parent / name
        self._facts = facts
        self._steps: Counter[Step] = Counter()
        self._since_look = 0
        self._next_write = time.monotonic() + SECONDS_BETWEEN_WRITES
        atexit.register(self.write)
        # Forked engine processes end in os._exit, which skips atexit but not this.
        multiprocessing.util.Finalize(self, self.write, exitpriority=10)

    def add(
        self, mode: str, outcome: str, batch: int, query_len: int, kv_total: int, kv_longest: int
    ) -> None:
        """Count one step of ``batch`` requests with ``kv_total`` tokens among them."""
        mean = kv_bucket(max(query_len, kv_total // batch))
        self._steps[mode, outcome, batch, query_len, mean, kv_bucket(kv_longest)] += 1
        self._since_look += 1
        if self._since_look >= STEPS_BETWEEN_LOOKS:
            self._since_look = 0
            if time.monotonic() >= self._next_write:
                self.write()

    def add_step(self, mode: str, outcome: str, batch: Any, metadata: Any) -> None:
        """Count the decode part and the prefill part of a step, each as a shape of its own.

        ``batch`` is vLLM's CommonAttentionMetadata, ``metadata`` what was built from it; only
        their CPU data is read.
        """
        lens = batch.seq_lens_cpu_upper_bound
        if lens is None:
            return
        requests, tokens = min(metadata.num_reqs, len(lens)), metadata.num_decode_tokens
        decodes = min(metadata.num_decodes, requests)
        parts = [(0, decodes, tokens), (decodes, requests, batch.num_actual_tokens - tokens)]
        for first, last, new_tokens in parts:
            part, count = lens[first:last], last - first
            # A dummy batch of a warm-up has a length of 1; a decode has a prompt behind it.
            if count > 0 and new_tokens > 0 and int(part.max()) > 1:
                query_len = max(1, new_tokens // count)
                self.add(mode, outcome, count, query_len, int(part.sum()), int(part.max()))

    def write(self) -> None:
        """Replace the file. A disk that is full or gone costs the record, not the engine."""
        self._next_write = time.monotonic() + SECONDS_BETWEEN_WRITES
        if not self._steps:
            return
        scratch = self.path.with_suffix(".tmp")
        try:
            scratch.write_text(json.dumps(self._document(), indent=1), encoding="utf-8")
            scratch.replace(self.path)
        except OSError as error:
            logger.warning("mla-tune: %s cannot be written: %s", self.path, error)

    def _document(self) -> dict[str, Any]:
        names = ("mode", "outcome", "batch", "query_len", "kv_len", "longest_kv_len")
        return {
            "format": RECORD_FORMAT,
            "backend": self._facts.backend,
            "model": dict(self._facts.model),
            "kv_cache_dtype": self._facts.kv_cache_dtype,
            "max_model_len": self._facts.max_model_len,
            "device": self._facts.device_name,
            "vllm": self._facts.vllm,
            "steps": [
                {**dict(zip(names, step, strict=True)), "count": count}
                for step, count in self._steps.most_common()
            ],
        }
