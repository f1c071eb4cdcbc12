"""The worker of a device on another host, as Ray keeps it there: an actor of this class."""

__all__ = ["RemoteWorker"]

import contextlib
from collections.abc import Callable
from typing import Any

from mla_tune._version import __version__
from mla_tune.errors import MlaTuneError
from mla_tune.measuring.worker_client import Limits
from mla_tune.tuning.device_bench import alone, scratch_worker

Answer = tuple[str, Any]
"""``done`` with the result, or ``failed`` with the error: Ray would wrap what is raised."""


class RemoteWorker:
    """Answers for one device of its host, of which it holds the lock, until its process ends."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()
        self.notices: list[str] = []

    def start(self, device: str, limits: Limits) -> Answer:
        """Start a worker on ``device`` and find out what it is on.

        Returns:
            The version of this package here, the device, its identity, its environment, and what
            the user should know.
        """

        def started() -> tuple[Any, ...]:
            self._worker = self._held.enter_context(scratch_worker(device, limits))
            self._held.enter_context(alone(self._worker, self.notices.append, wait=False))
            worker = self._worker
            found = (worker.device, worker.device_identity(), worker.environment)
            return (__version__, *found, tuple(self.notices))

        return _answered(started)

    def ask(self, name: str, *arguments: Any) -> Answer:
        """Have the worker's bench do something, by the name of its method."""
        return _answered(lambda: getattr(self._worker, name)(*arguments))


def _answered(action: Callable[[], Any]) -> Answer:
    try:
        return "done", action()
    except MlaTuneError as error:
        return "failed", error
