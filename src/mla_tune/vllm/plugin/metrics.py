"""The counts of the plugin in vLLM's own ``/metrics``, where an engine's operator looks.

Steps run in other processes than the API server. Where ``PROMETHEUS_MULTIPROC_DIR`` is set, vLLM's
server collects what all of them have left in that folder, as prometheus_client's multiprocess mode
has it; without it there is no way there, and nothing is done here.

A step only adds to `Counts`, as it does anyway. A thread carries what was added to Prometheus's
counters, every few seconds and once at the end.
"""

__all__ = ["Labels", "Metrics", "labels_of"]

import atexit
import multiprocessing.util
import os
import threading
from typing import Any, NamedTuple

from mla_tune.vllm.compat.parallel import prefill_context_parallel
from mla_tune.vllm.log import logger
from mla_tune.vllm.plugin.counts import EVENTS, Counts

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SECONDS_BETWEEN_WRITES = 5.0

STEPS = (
    "vllm:mla_tune_steps",
    "Steps of the engine that mla-tune looked up, by what its tables said.",
)
HELP = {
    "capped": "Steps whose split count was lowered to fit the workspace.",
    "beyond": "Looks at graph steps with KV lengths past those that were measured.",
    "fallbacks": "Failures in mla-tune's own code, after which vLLM decides.",
    "verified": "Tuned values that were seen at a kernel's launch.",
    "not_applied": "Tuned values that did not reach the kernel.",
}


class Labels(NamedTuple):
    """The labels that vLLM's own metrics have.

    Attributes:
        model_name: as it is served.
        engine: the data-parallel replica.
        is_first: whether this process speaks for its engine's steps, which all ranks count alike.
    """

    model_name: str
    engine: str
    is_first: bool = True


def labels_of(vllm_config: Any) -> Labels:
    """The labels of the engine that this process is a rank of."""
    parallel = vllm_config.parallel_config
    replica = int(parallel.tensor_parallel_size * parallel.pipeline_parallel_size)
    replica *= prefill_context_parallel(parallel)
    name = getattr(vllm_config.model_config, "served_model_name", None)
    name = name or vllm_config.model_config.model
    return Labels(
        model_name=str(name[0] if isinstance(name, list | tuple) else name),
        engine=str(getattr(parallel, "data_parallel_index", parallel.data_parallel_rank)),
        is_first=replica == 1 or _rank() % replica == 0,
    )


def _rank() -> int:
    import torch.distributed

    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


class Metrics:
    """Prometheus's counters of one process, and what was added to them.

    There is one in a process: two would write over one another's values.
    """

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter

        # Not vLLM's, whose server removes all metrics called vllm: before it makes its own.
        registry = CollectorRegistry()
        by_engine = ("model_name", "engine", "backend")
        self._steps = Counter(*STEPS, (*by_engine, "mode", "outcome"), registry=registry)
        self._events = {
            event: Counter(f"vllm:mla_tune_{event}", HELP[event], by_engine, registry=registry)
            for event in EVENTS
        }
        self._sources: list[tuple[Counts, Labels]] = []
        self._added: dict[Any, int] = {}
        self._writing = threading.Lock()
        self._ended = threading.Event()

    @classmethod
    def of_process(cls) -> "Metrics | None":
        """The counters of this process, carried on by a thread; None without a folder for them."""
        if not os.environ.get(FOLDER):
            return None
        try:
            metrics = cls()
        except Exception as error:  # no prometheus_client, or a folder that cannot be written
            told = f"{type(error).__name__}: {error}"
            logger.warning("mla-tune: no counts in /metrics: %s", told)
            return None
        atexit.register(metrics.close)
        # Forked engine processes end in os._exit, which skips atexit but not this.
        multiprocessing.util.Finalize(metrics, metrics.close, exitpriority=10)
        threading.Thread(
            target=metrics._write_at_times, name="mla-tune-metrics", daemon=True
        ).start()
        return metrics

    def follow(self, counts: Counts, labels: Labels) -> None:
        """Have the counters say what ``counts`` says from here on, beginning with zeros."""
        with self._writing:
            self._sources.append((counts, labels))
        self.write()

    def write(self) -> None:
        """Add to the counters what has come since the last time."""
        with self._writing:
            for number, (counts, labels) in enumerate(self._sources):
                engine = (labels.model_name, labels.engine, counts.backend)
                if labels.is_first:
                    for (mode, outcome), total in counts.by_mode().items():
                        step = self._steps.labels(*engine, mode, outcome)
                        self._add(step, (number, mode, outcome), total)
                for event, counter in self._events.items():
                    total = getattr(counts, event)
                    self._add(counter.labels(*engine), (number, event), total)

    def _add(self, counter: Any, key: Any, total: int) -> None:
        counter.inc(total - self._added.get(key, 0))
        self._added[key] = total

    def _write_at_times(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_WRITES):
            try:
                self.write()
            except Exception as error:
                told = f"{type(error).__name__}: {error}"
                logger.warning("mla-tune: counting in /metrics ends here: %s", told)
                return

    def close(self) -> None:
        """Write a last time, and end the thread."""
        self._ended.set()
        self.write()
