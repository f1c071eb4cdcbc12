"""Time-outs that count only the time in which both sides of a wait ran."""

__all__ = ["RunningClock", "is_stopped"]

import time
from collections.abc import Callable

import psutil

STEP_S = 0.2
"""How long to wait at a time. A step that takes far longer was not waiting: this process was
stopped, or its container frozen."""


class RunningClock:
    """A monotonic clock that stands still while the run is suspended.

    ``CLOCK_MONOTONIC`` goes on while SIGSTOP, Ctrl-Z or a frozen cgroup holds a process, so that a
    run of which nothing hung would time out as soon as it is continued.

    Args:
        monotonic: seconds of a clock that goes on while this process is stopped.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lost_s = 0.0

    def now(self) -> float:
        """Seconds that have passed while the run ran, as far as `wait` has seen."""
        return self._monotonic() - self._lost_s

    def wait(
        self,
        is_ready: Callable[[float], bool],
        limit_s: float,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Wait for ``is_ready``, at most ``limit_s`` seconds in which both sides ran.

        Args:
            is_ready: waits so many seconds at most and says whether what is waited for is there.
            limit_s: how long to wait.
            is_stopped: whether the process that is waited for is stopped.

        Returns:
            Whether it is there.
        """
        left_s = limit_s
        while left_s > 1e-6:  # a clock does not move by less
            step_s = min(STEP_S, left_s)
            began = self._monotonic()
            ready = is_ready(step_s)
            passed_s = self._monotonic() - began
            ran_s = min(passed_s, step_s + STEP_S)
            if not ready and is_stopped():
                ran_s = 0.0
            self._lost_s += passed_s - ran_s
            if ready:
                return True
            left_s -= ran_s
        return is_ready(0.0)


def is_stopped(pid: int) -> bool:
    """Whether process ``pid`` is held by a signal or a debugger, which is no hang of its own."""
    try:
        status: str = psutil.Process(pid).status()
    except psutil.Error:
        return False
    return status in {psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP}
