"""What a table's header says of a GPU that only its driver knows, and only under load."""

__all__ = ["with_gpu_facts"]

from collections.abc import Callable
from dataclasses import replace

from mla_tune.device.driver import GpuDriver, NotAskable
from mla_tune.environment import Environment


def with_gpu_facts(
    environment: Environment,
    find_driver: Callable[[], GpuDriver],
    locked_clock_mhz: Callable[[GpuDriver], int | None],
) -> Environment:
    """Add whether the SM clock is locked, and what the driver does not say.

    Args:
        environment: of a GPU.
        find_driver: finds its driver; may raise NotAskable.
        locked_clock_mhz: measures where the clock is locked; may raise NotAskable.
    """
    try:
        driver = find_driver()
        locked_mhz = locked_clock_mhz(driver)
    except NotAskable as reason:
        return replace(environment, unwatched=f"clocks and other processes ({reason})")
    try:
        driver.sm_shares(0)
    except NotAskable as reason:
        unwatched = f"other processes ({reason})"
        return replace(environment, locked_sm_clock_mhz=locked_mhz, unwatched=unwatched)
    return replace(environment, locked_sm_clock_mhz=locked_mhz)
