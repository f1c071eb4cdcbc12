from contextlib import contextmanager

import pytest
import torch

from mla_tune.measuring import stopwatch as measure
from mla_tune.measuring.load import OthersLoad
from mla_tune.measuring.stopwatch import CpuClock, Samples, stopwatch_for


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


def test_the_cpu_has_a_clock():
    assert isinstance(stopwatch_for(torch.device("cpu"), "eager"), CpuClock)


def test_samples_add_up_with_what_is_known_of_them():
    total = Samples(((1.0,),), 1) + Samples(((2.0,),), 2, "hot")
    assert total == Samples(((1.0,), (2.0,)), 3, "hot")


def test_what_others_did_is_kept_when_samples_add_up():
    first = Samples((), others=OthersLoad("GPU", 0.2, (7,)))
    second = Samples((), others=OthersLoad("GPU", 0.4, (5,)))
    both = OthersLoad("GPU", 0.4, (5, 7))
    assert (first + second).others == (second + first).others == both
    assert (Samples(()) + first).others == (first + Samples(())).others == first.others
