"""What the plugin remembers in a process of vLLM: tables, deployments, messages.

vLLM makes the plugin's builders and impls itself, so nothing can be handed to them. They find what
they share here.
"""

__all__ = ["PluginState", "once", "process_state"]

import functools
from collections.abc import Callable, Hashable
from typing import Any

from mla_tune.printable import printable
from mla_tune.table.loading import LoadedTable
from mla_tune.vllm.log import logger
from mla_tune.vllm.plugin.metrics import Metrics


class PluginState:
    """The plugin in one process.

    Attributes:
        setting: the value of ``MLA_TUNE_TABLES`` that ``tables`` were loaded from; None before.
        tables: everything it names that could be read.
    """

    def __init__(self) -> None:
        self.setting: str | None = None
        self.tables: list[LoadedTable] = []
        self._deployments: dict[Hashable, Any] = {}
        self._said: set[str] = set()

    @functools.cached_property
    def metrics(self) -> Metrics | None:
        """Prometheus's counters of this process; None where nobody would collect them."""
        return Metrics.of_process()

    @property
    def deployments(self) -> tuple[Any, ...]:
        """Every `Deployment` of this process."""
        return tuple(self._deployments.values())

    def deployment(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The deployment with this ``key``; ``make`` is called if there is none yet."""
        if key not in self._deployments:
            self._deployments[key] = make()
        return self._deployments[key]

    def once(self, level: int, message: str, *, exc_info: BaseException | None = None) -> None:
        """Log ``message``, unless it has been logged before."""
        message = printable(message)
        if message not in self._said:
            self._said.add(message)
            logger.log(level, message, exc_info=exc_info)


_process_state = PluginState()


def process_state() -> PluginState:
    """The state of this process. A test puts one of its own in place of it."""
    return _process_state


def once(level: int, message: str, *, exc_info: BaseException | None = None) -> None:
    """Log ``message``, unless this process has already logged it."""
    _process_state.once(level, message, exc_info=exc_info)
