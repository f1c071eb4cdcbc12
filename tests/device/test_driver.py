import pynvml
import pytest
import torch

from fake_nvml import NOT_SUPPORTED, FakeNvml
from mla_tune.device.driver import Clocks, GpuDriver, NotAskable, driver_of, gpu_names


def test_the_bits_are_nvmls():
    assert pynvml.nvmlClocksThrottleReasonApplicationsClocksSetting == Clocks.LOCKED
    assert pynvml.nvmlClocksThrottleReasonSwPowerCap == Clocks.POWER_CAP
    assert (
        pynvml.nvmlClocksThrottleReasonHwSlowdown
        | pynvml.nvmlClocksThrottleReasonSwThermalSlowdown
        | pynvml.nvmlClocksThrottleReasonHwThermalSlowdown
        | pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown
    ) == Clocks.SLOWDOWN


@pytest.mark.parametrize("name", FakeNvml.__dict__)
def test_what_stands_for_nvml_has_nvmls_names(name):
    if name.lower().startswith("nvml"):
        assert hasattr(pynvml, name)


def test_gpus_are_named_once_and_none_where_the_driver_does_not_answer():
    names = ("NVIDIA H200", "NVIDIA H200", "NVIDIA L4")
    assert gpu_names(FakeNvml(names=names)) == ("NVIDIA H200", "NVIDIA L4")
    assert gpu_names(FakeNvml(refuses={"init": NOT_SUPPORTED})) == ()


def test_a_cpu_has_no_driver():
    assert driver_of(torch.device("cpu")) is None


@pytest.mark.parametrize("step", ["init", "handle"])
def test_a_gpu_that_nvml_does_not_know_cannot_be_asked(step):
    with pytest.raises(NotAskable, match="NVML: Not Supported"):
        GpuDriver.by_uuid("GPU-1", FakeNvml(refuses={step: NOT_SUPPORTED}))


def test_clocks_that_the_driver_keeps_to_itself_cannot_be_asked():
    driver = FakeNvml(refuses={"reasons": NOT_SUPPORTED}).driver
    with pytest.raises(NotAskable, match="Not Supported"):
        driver.clocks()


def test_the_shares_of_processes_are_the_largest_since_the_last_question():
    nvml = FakeNvml(samples=[(7, 100, 30), (7, 200, 50), (8, 200, 120)])
    newest, shares = nvml.driver.sm_shares(0)
    assert (newest, shares) == (200, {7: 0.5, 8: 1.0})
    assert nvml.driver.sm_shares(newest) == (200, {})
    nvml.samples.append((8, 300, 10))
    assert nvml.driver.sm_shares(newest) == (300, {8: 0.1})


class Forgetful(FakeNvml):
    """A driver that answers with all it has, whatever is asked for."""

    def nvmlDeviceGetProcessUtilization(self, handle, _since_us):  # noqa: N802 - NVML's name
        return super().nvmlDeviceGetProcessUtilization(handle, 0)


def test_old_samples_that_come_again_do_not_count_nor_turn_the_time_back():
    assert Forgetful(samples=[(7, 100, 30)]).driver.sm_shares(200) == (200, {})
