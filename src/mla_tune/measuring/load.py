"""What other processes do to the device while samples are taken.

Nothing is thrown away for it, since another user's job may last all night: the entry notes it.
"""

__all__ = ["CoreLoad", "GpuLoad", "LoadWatch", "OthersLoad", "load_watch_for"]

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import psutil

from mla_tune.device.driver import GpuDriver, NotAskable

LEAST_SHARE = {"GPU": 0.05, "cores": 0.10}
"""Shares below which nothing is said: a desktop on the GPU, the system's own work on the cores."""


@dataclass(frozen=True)
class OthersLoad:
    """The load of processes that are not this run's.

    Attributes:
        of: ``GPU`` or ``cores``.
        share: of the GPU's time, or of all cores' time, between 0 and 1; the largest seen.
        pids: the processes, where they are known.
    """

    of: str
    share: float
    pids: tuple[int, ...] = ()

    def with_more(self, other: "OthersLoad | None") -> "OthersLoad":
        """Add what was seen at another time."""
        if other is None:
            return self
        pids = tuple(sorted({*self.pids, *other.pids}))
        return OthersLoad(self.of, max(self.share, other.share), pids)

    def __str__(self) -> str:
        who = "another process" if len(self.pids) == 1 else "other processes"
        named = f" (pid {', '.join(map(str, self.pids))})" if self.pids else ""
        return f"{who}{named} used up to {self.share:.0%} of the {self.of} meanwhile"


class LoadWatch(Protocol):
    """Looks at others' load between two questions."""

    def others(self) -> OthersLoad | None:
        """The load since the last question, where it is worth a note."""
        ...


class GpuLoad:
    """The load on a GPU, as its driver sees its processes.

    Args:
        driver: of the GPU.
        pid: of the process that measures.
        exists: whether a process id is one of this container's.
    """

    def __init__(
        self, driver: GpuDriver, pid: int, exists: Callable[[int], bool] = psutil.pid_exists
    ) -> None:
        self._driver = driver
        self._pid = pid
        self._exists = exists
        self._since_us = 0
        self.others()  # what was before is no matter

    def others(self) -> OthersLoad | None:
        """As `LoadWatch.others`; None too where the driver does not say."""
        try:
            self._since_us, shares = self._driver.sm_shares(self._since_us)
        except NotAskable:
            return None
        if shares.pop(self._pid, None) is None:
            # A container may see the ids of its host. Then one that is none of its own, the
            # busiest, is this process; as it is where a worker before this one has ended.
            strangers = [pid for pid in shares if not self._exists(pid)]
            if strangers:
                del shares[max(strangers, key=lambda pid: shares[pid])]
        busy = {pid: share for pid, share in shares.items() if share >= LEAST_SHARE["GPU"]}
        if not busy:
            return None
        return OthersLoad("GPU", max(busy.values()), tuple(sorted(busy)))


class CoreLoad:
    """The load on the cores that this process may run on.

    Args:
        busy_s: seconds that those cores were busy, all together, since some moment.
        own_s: seconds of processor time that this run has used since some moment.
        now_s: a monotonic clock.
        num_cores: how many cores.
    """

    SHORTEST_S = 0.5  # the kernel counts in ticks of 10 ms

    def __init__(
        self,
        busy_s: Callable[[], float],
        own_s: Callable[[], float],
        now_s: Callable[[], float],
        num_cores: int,
    ) -> None:
        self._busy_s, self._own_s, self._now_s = busy_s, own_s, now_s
        self._num_cores = num_cores
        self._before = self._read()

    def _read(self) -> tuple[float, float, float]:
        return self._now_s(), self._busy_s(), self._own_s()

    @classmethod
    def here(cls) -> "CoreLoad":
        """The load on this process's cores that is neither its own nor its parent's."""
        cores = sorted(os.sched_getaffinity(0))
        # A container's first process has a parent that it cannot see.
        own = [psutil.Process(pid) for pid in (os.getpid(), os.getppid()) if pid]
        return cls(lambda: _busy_s(cores), lambda: _used_s(own), time.monotonic, len(cores))

    def others(self) -> OthersLoad | None:
        """As `LoadWatch.others`; less than half a second is kept for the next question."""
        now = self._read()
        elapsed_s, busy_s, own_s = (a - b for a, b in zip(now, self._before, strict=True))
        if elapsed_s < self.SHORTEST_S:
            return None
        self._before = now
        share = min(max(busy_s - own_s, 0.0) / (elapsed_s * self._num_cores), 1.0)
        return OthersLoad("cores", share) if share >= LEAST_SHARE["cores"] else None


class NoLoad:
    """The load where there is nobody to ask."""

    def others(self) -> None:
        """As `LoadWatch.others`."""


def load_watch_for(device_type: str, driver: GpuDriver | None) -> LoadWatch:
    """The watch for a device's type (``cpu`` or ``cuda``) and its driver, if it has one."""
    if device_type == "cpu":
        try:
            return CoreLoad.here()
        except (OSError, psutil.Error):  # a sandbox without the kernel's counters
            return NoLoad()
    return GpuLoad(driver, os.getpid()) if driver is not None else NoLoad()


def _busy_s(cores: list[int]) -> float:
    """Seconds that these cores ran something; a hypervisor's other guests count as something."""
    total = 0.0
    each = psutil.cpu_times(percpu=True)
    for core in cores:
        if core < len(each):  # offline cores are left out
            times = each[core]._asdict()
            # Linux counts guests in user as well.
            idle = ("idle", "iowait", "guest", "guest_nice")
            total += sum(value for name, value in times.items() if name not in idle)
    return total


def _used_s(processes: Sequence[psutil.Process]) -> float:
    """Seconds that these processes and their ended children have run."""
    total = 0.0
    for process in processes:
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.Error:
            continue
    return total
