import pytest

from fake_nvml import NOT_SUPPORTED, FakeNvml
from mla_tune.device.driver import Clocks
from mla_tune.errors import EnvironmentFailure
from mla_tune.measuring.throttle import ThrottleWatch, locked_clock_mhz

LOCK, POWER_CAP, THERMAL = 0x2, 0x4, 0x40


def a100(clock_mhz, reasons=0):
    """The reporter's card."""
    return FakeNvml([clock_mhz], reasons, max_mhz=1410, temperature_c=91)


@pytest.mark.parametrize(
    ("nvml", "says"),
    [
        (a100(1410), None),
        (a100(1300, POWER_CAP), None),  # how a busy GPU runs
        (a100(1410, THERMAL), "throttled by the driver (reasons 0x40, 91 °C)"),
        (a100(1005, THERMAL | LOCK), "throttled by the driver (reasons 0x42, 91 °C)"),
        (a100(1005), "SM clock at 1005 of 1410 MHz"),
        (a100(1005, POWER_CAP), "SM clock at 1005 of 1410 MHz"),
    ],
)
def test_throttling_is_what_the_driver_says_or_a_low_clock(nvml, says):
    watch = ThrottleWatch(nvml.driver)
    for _ in range(5):
        assert watch.slowed_down() == says


def test_a_lock_that_the_table_is_for_is_no_throttling():
    assert ThrottleWatch(a100(1005, LOCK).driver, locked_mhz=1005).slowed_down() is None


def test_under_a_lock_a_clock_below_it_is_still_throttling():
    watch = ThrottleWatch(a100(700, POWER_CAP | LOCK).driver, locked_mhz=1005)
    assert watch.slowed_down() == "SM clock at 700 of 1005 MHz"
    assert ThrottleWatch(a100(1000, THERMAL).driver, locked_mhz=1005).slowed_down()


def test_a_lock_set_while_the_run_goes_on_ends_it_at_the_third_look():
    watch = ThrottleWatch(a100(1005, LOCK).driver)
    assert watch.slowed_down() == watch.slowed_down() == "SM clock at 1005 of 1410 MHz"
    with pytest.raises(EnvironmentFailure) as caught:
        watch.slowed_down()
    assert caught.value.what == (
        "the SM clock is locked at 1005 MHz; when the run began it was not locked"
    )
    assert "the same command again" in caught.value.remedy


def test_a_clock_that_recovers_ends_no_run():
    nvml = FakeNvml([1005, 1005, 1410, 1005, 1005, 1410], LOCK, max_mhz=1410)
    watch = ThrottleWatch(nvml.driver)
    slow = [watch.slowed_down() is not None for _ in range(6)]
    assert slow == [True, True, False, True, True, False]


def test_a_lock_taken_off_while_the_run_goes_on_ends_it():
    with pytest.raises(EnvironmentFailure, match="is not locked; when the run began it was locked"):
        ThrottleWatch(a100(1410).driver, locked_mhz=1005).slowed_down()


def test_where_nobody_can_be_asked_nothing_is_said():
    assert ThrottleWatch(None).slowed_down() is None
    silent = FakeNvml(refuses={"reasons": NOT_SUPPORTED}).driver
    assert ThrottleWatch(silent).slowed_down() is None


def readings(*clocks_mhz, reasons=LOCK):
    return [Clocks(clock, 1410, reasons, 60) for clock in clocks_mhz]


@pytest.mark.parametrize(
    ("seen", "lock"),
    [
        (readings(1005, 1005, 1005), 1005),
        (readings(1005, 990, 1005), 1005),
        (readings(1410, 1410), None),  # locked at its maximum: nothing is held down
        (readings(1005, 1200), None),
        (readings(1005, 1005, reasons=0), None),
        (readings(1005, 1005, reasons=LOCK | POWER_CAP), None),
        (readings(1005, 1005, reasons=LOCK | THERMAL), None),
        ([], None),
    ],
)
def test_a_lock_is_a_steady_clock_that_nothing_else_holds_down(seen, lock):
    assert locked_clock_mhz(seen) == lock
