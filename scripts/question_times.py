"""How long the workers of a run took to answer, by what they were asked."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mla_tune.measuring.worker_client import WorkerBench
from mla_tune.vllm.observe import set_for_now


class QuestionTimes:
    """Adds up the answers of all workers of this process for a while.

    Args:
        clock: seconds.

    Attributes:
        seconds: by device, then by the name of the bench's method; a start stands with its first.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds: dict[str, dict[str, float]] = {}
        self._clock = clock
        self._lock = threading.Lock()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch all that is asked meanwhile; devices are asked from threads of their own."""
        ask = WorkerBench._ask

        def timed(bench: Any, name: str, *arguments: Any) -> Any:
            began_s = self._clock()
            try:
                return ask(bench, name, *arguments)
            finally:
                taken_s = self._clock() - began_s
                with self._lock:
                    own = self.seconds.setdefault(bench.device, {})
                    own[name] = own.get(name, 0.0) + taken_s

        with set_for_now(WorkerBench, "_ask", timed):
            yield

    def told(self, device: str) -> str:
        """The longest first, of ``device``."""
        own = self.seconds.get(device, {})
        longest = sorted(own, key=lambda name: -own[name])
        return ", ".join(f"{name} {own[name]:.1f} s" for name in longest)
