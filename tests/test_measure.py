from contextlib import contextmanager

import pytest
import torch

from mla_tune import measure
from mla_tune.measure import CpuClock, Samples, ThrottleWatch, stopwatch_for


class Clock:
    """A clock that only moves when a pass runs."""

    def __init__(self, pass_ns):
        self.now_ns = 0
        self.passes = 0
        self.pass_ns = pass_ns

    def perf_counter_ns(self):
        return self.now_ns

    def run(self):
        self.passes += 1
        self.now_ns += self.pass_ns


class Prepared:
    def __init__(self, clock):
        self.entered = 0
        self._clock = clock

    @contextmanager
    def applied(self):
        self.entered += 1
        yield self._clock.run
        self.entered -= 1


@pytest.fixture
def clock(monkeypatch):
    clock = Clock(pass_ns=50_000)
    monkeypatch.setattr(measure.time, "perf_counter_ns", clock.perf_counter_ns)
    return clock


def test_a_sample_is_the_time_of_one_pass_in_microseconds(clock):
    assert CpuClock().sampler(Prepared(clock))() == 50.0


def test_short_passes_are_repeated_to_fill_two_milliseconds(clock):
    sample = CpuClock().sampler(Prepared(clock))
    before = clock.passes
    sample()
    assert (clock.passes - before) * clock.pass_ns == CpuClock.SAMPLE_NS


def test_a_long_pass_is_taken_once(clock):
    clock.pass_ns = 10**9
    sample = CpuClock().sampler(Prepared(clock))
    before = clock.passes
    assert sample() == 1e6
    assert clock.passes == before + 1


def test_a_pass_too_short_to_see_is_no_division_by_zero(clock):
    clock.pass_ns = 0
    assert CpuClock().sampler(Prepared(clock))() == 0.0


def test_the_knobs_are_back_to_what_they_were_after_a_sample(clock):
    prepared = Prepared(clock)
    CpuClock().sampler(prepared)()
    assert prepared.entered == 0


def test_the_cpu_has_a_clock_and_is_never_throttled():
    device = torch.device("cpu")
    assert isinstance(stopwatch_for(device, "eager"), CpuClock)
    assert ThrottleWatch(device).slowed_down() is None


def test_samples_add_up_with_what_is_known_of_them():
    total = Samples(((1.0,),), 1) + Samples(((2.0,),), 2, "hot")
    assert total == Samples(((1.0,), (2.0,)), 3, "hot")


class Nvml:
    """As much of pynvml as the watch looks at."""

    NVMLError = RuntimeError
    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0
    nvmlClocksThrottleReasonHwSlowdown = 8  # noqa: N815 - NVML's names
    nvmlClocksThrottleReasonSwThermalSlowdown = 32  # noqa: N815
    nvmlClocksThrottleReasonHwThermalSlowdown = 64  # noqa: N815
    nvmlClocksThrottleReasonHwPowerBrakeSlowdown = 128  # noqa: N815

    def __init__(self, reasons=0, clock_mhz=1900):
        self.reasons, self.clock_mhz = reasons, clock_mhz

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _handle):  # noqa: N802
        return self.reasons

    def nvmlDeviceGetClockInfo(self, _handle, _kind):  # noqa: N802
        return self.clock_mhz

    def nvmlDeviceGetMaxClockInfo(self, _handle, _kind):  # noqa: N802
        return 2000

    def nvmlDeviceGetTemperature(self, _handle, _kind):  # noqa: N802
        return 91


@pytest.mark.parametrize(
    ("nvml", "says"),
    [
        (Nvml(), None),
        (Nvml(reasons=4), None),  # the power cap: how a busy GPU runs
        (Nvml(reasons=64), "throttled by the driver (reasons 0x40, 91 °C)"),
        (Nvml(clock_mhz=1400), "SM clock at 1400 of 2000 MHz"),
    ],
)
def test_throttling_is_what_the_driver_says_or_a_low_clock(nvml, says):
    watch = ThrottleWatch(torch.device("cpu"))
    watch._nvml, watch._handle = nvml, object()
    assert watch.slowed_down() == says
