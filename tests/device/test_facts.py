from dataclasses import replace

import pytest

from fake_device import ENVIRONMENT
from fake_nvml import NOT_FOUND, NOT_SUPPORTED, FakeNvml
from mla_tune.device.driver import GpuDriver
from mla_tune.device.facts import with_gpu_facts
from mla_tune.measuring.throttle import locked_clock_mhz

GPU = replace(ENVIRONMENT, compute_capability="8.0")


def facts(nvml):
    found = with_gpu_facts(
        GPU,
        lambda: GpuDriver.by_uuid("GPU-1", nvml),
        lambda driver: locked_clock_mhz([driver.clocks() for _ in range(3)]),
    )
    return found.locked_sm_clock_mhz, found.unwatched


def test_a_gpu_at_full_clock_has_nothing_to_be_said_of():
    assert facts(FakeNvml()) == (None, None)


def test_a_locked_clock_is_a_fact():
    assert facts(FakeNvml([1005], reasons=2, max_mhz=1410)) == (1005, None)


@pytest.mark.parametrize("step", ["init", "handle", "reasons"])
def test_a_driver_that_cannot_be_asked_is_a_fact(step):
    said = facts(FakeNvml(refuses={step: NOT_FOUND}))
    assert said == (None, "clocks and other processes (NVML: Not Found)")


def test_a_driver_that_does_not_tell_of_processes_is_a_fact():
    nvml = FakeNvml([1005], reasons=2, max_mhz=1410, refuses={"processes": NOT_SUPPORTED})
    assert facts(nvml) == (1005, "other processes (NVML: Not Supported)")
