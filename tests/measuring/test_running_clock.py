import os
import signal
import subprocess
import time

import pytest

from mla_tune.measuring.running_clock import RunningClock, is_stopped


class Time:
    """A clock that moves when somebody waits, and jumps when the process is suspended."""

    def __init__(self):
        self.now_s = 100.0
        self.jumps = {}
        self.waits = 0

    def __call__(self):
        return self.now_s

    def is_ready(self, seconds):
        self.waits += 1
        self.now_s += seconds + self.jumps.get(self.waits, 0.0)
        return False


@pytest.fixture
def fake():
    return Time()


def waited(fake, limit_s, **more):
    began = fake.now_s
    assert not RunningClock(fake).wait(fake.is_ready, limit_s, **more)
    return fake.now_s - began


def test_what_does_not_come_is_given_up_after_the_limit(fake):
    assert waited(fake, 30.0) == pytest.approx(30.0)


def test_a_limit_below_a_step_is_kept(fake):
    assert waited(fake, 0.05) == pytest.approx(0.05)


def test_time_in_which_this_process_was_suspended_does_not_count(fake):
    fake.jumps = {3: 3600.0}
    assert waited(fake, 30.0) == pytest.approx(3630.0, abs=0.5)


def test_steps_that_a_busy_machine_makes_longer_do_count(fake):
    fake.jumps = dict.fromkeys(range(1000), 0.1)
    assert waited(fake, 30.0) == pytest.approx(30.0, abs=0.5)


def test_time_in_which_the_other_process_was_stopped_does_not_count(fake):
    stopped = iter([True] * 500)
    assert waited(fake, 30.0, is_stopped=lambda: next(stopped, False)) == pytest.approx(130.0)


def test_the_clock_stands_still_over_a_suspension_that_ends_in_an_answer(fake):
    clock = RunningClock(fake)
    began = clock.now()
    fake.jumps = {1: 3600.0}
    assert clock.wait(lambda seconds: not fake.is_ready(seconds), 30.0)
    assert clock.now() - began < 1.0


def test_a_stopped_process_is_told_from_one_that_runs():
    process = subprocess.Popen(["sleep", "60"])
    try:
        assert not is_stopped(process.pid)
        os.kill(process.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while not is_stopped(process.pid):
            assert time.monotonic() < deadline
    finally:
        process.kill()
        process.wait()
    assert not is_stopped(process.pid)
