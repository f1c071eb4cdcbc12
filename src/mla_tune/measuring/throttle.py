"""The SM clock while measuring: whether it was held down, and whether it is locked for good."""

__all__ = ["ThrottleWatch", "changed_clock", "is_same_lock", "locked_clock_mhz", "locked_clock_of"]

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mla_tune.device.driver import Clocks, GpuDriver, NotAskable
from mla_tune.errors import DeviceLost

if TYPE_CHECKING:
    import torch

STEADY = 0.03
"""How far two readings of a locked clock may differ, as a share of the clock."""

READINGS = 10
READING_S = 0.02
SPIN_CYCLES = 80_000_000  # 40 ms at 2 GHz: the GPU is busy from one reading to the next


class ThrottleWatch:
    """Says whether the device ran at full speed since it was last asked.

    Reads the driver's clock-event reasons and the SM clock. Power capping alone is
    not throttling: it is how a busy GPU runs. Like nvbench, a clock below 75 % of what the GPU
    may run at while busy counts: its maximum, or where the clock is locked, the lock.

    Args:
        driver: of the GPU; None where there is nothing to ask.
        locked_mhz: where the clock was locked when the run began, or None.
    """

    LOWEST_CLOCK_SHARE = 0.75
    READINGS_OF_A_LOCK = 3

    def __init__(self, driver: GpuDriver | None, locked_mhz: int | None = None) -> None:
        self._driver = driver
        self._locked_mhz = locked_mhz
        self._last: list[Clocks] = []

    def slowed_down(self) -> str | None:
        """Why samples just taken cannot be trusted, or None.

        Raises:
            EnvironmentFailure: the clock has been locked or unlocked since the run began.
        """
        if self._driver is None:
            return None
        try:
            clocks = self._driver.clocks()
        except NotAskable:
            return None
        if clocks.is_slowed_down:
            self._last.clear()
            return (
                f"throttled by the driver (reasons {clocks.reasons:#x}, {clocks.temperature_c} °C)"
            )
        if self._locked_mhz and clocks.sm_mhz > self._locked_mhz * (1 + STEADY):
            raise changed_clock(self._locked_mhz, None)
        allowed_mhz = self._locked_mhz or clocks.max_sm_mhz
        if clocks.sm_mhz < self.LOWEST_CLOCK_SHARE * allowed_mhz:
            self._check_lock(clocks)
            return f"SM clock at {clocks.sm_mhz} of {allowed_mhz} MHz"
        self._last.clear()
        return None

    def _check_lock(self, clocks: Clocks) -> None:
        """Stop at a steady lock: waiting for the clock to recover would take the whole night."""
        self._last = [*self._last, clocks][-self.READINGS_OF_A_LOCK :]
        found = locked_clock_mhz(self._last)
        if found is not None and len(self._last) == self.READINGS_OF_A_LOCK:
            raise changed_clock(self._locked_mhz, found)


def is_same_lock(before_mhz: int | None, now_mhz: int | None) -> bool:
    """Whether a clock is locked where it was, or still not locked."""
    if before_mhz is None or now_mhz is None:
        return before_mhz == now_mhz
    return abs(now_mhz - before_mhz) <= STEADY * before_mhz


def changed_clock(before_mhz: int | None, now_mhz: int | None) -> DeviceLost:
    """The end of a run whose clock was locked, unlocked or locked elsewhere since it began."""
    before, now = (f"locked at {mhz} MHz" if mhz else "not locked" for mhz in (before_mhz, now_mhz))
    return DeviceLost(
        f"the SM clock is {now}; when the run began it was {before}",
        remedy="finished trials are kept; the same command again tunes for this clock",
    )


def locked_clock_mhz(readings: Sequence[Clocks]) -> int | None:
    """Where the clock is locked below its maximum, by readings from a busy GPU; None: nowhere."""
    if not readings or not all(clocks.is_locked for clocks in readings):
        return None
    lowest = min(clocks.sm_mhz for clocks in readings)
    highest = max(clocks.sm_mhz for clocks in readings)
    if highest > lowest * (1 + STEADY) or highest > readings[0].max_sm_mhz * (1 - STEADY):
        return None
    return highest


def locked_clock_of(device: "torch.device", driver: GpuDriver) -> int | None:
    """Keep one SM of a CUDA device busy for a third of a second, and see where its clock stays.

    An idle GPU does not show it: ``nvidia-smi -lgc`` is in no figure of NVML.

    Raises:
        NotAskable: the driver does not say.
    """
    import torch

    readings = []
    with torch.cuda.device(device):
        for _ in range(READINGS):
            torch.cuda._sleep(SPIN_CYCLES)
            time.sleep(READING_S)
            readings.append(driver.clocks())
        torch.cuda.synchronize()
    return locked_clock_mhz(readings[READINGS // 2 :])  # the first ones see it leave idle
