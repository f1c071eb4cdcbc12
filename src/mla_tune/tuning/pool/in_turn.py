"""One reporter that the threads of several devices share."""

__all__ = ["InTurn"]

import threading
from collections.abc import Callable
from typing import Any, cast

from mla_tune.tuning.reporters import Reporter


class InTurn:
    """Passes on every call to a reporter, one at a time.

    Args:
        reporter: who is told.
        lock: shared by all that must not be told at once.
    """

    def __init__(self, reporter: Reporter, lock: threading.RLock) -> None:
        self._reporter = reporter
        self._lock = lock

    @classmethod
    def of(cls, reporter: Reporter) -> Reporter:
        """``reporter`` as threads may share it."""
        return cast("Reporter", cls(reporter, threading.RLock()))

    def on(self, device: str) -> Reporter:
        """As `Reporter.on`, under the same lock."""
        with self._lock:
            return cast("Reporter", InTurn(self._reporter.on(device), self._lock))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._reporter, name)

        def told(*arguments: Any) -> Any:
            with self._lock:
                return method(*arguments)

        return told
