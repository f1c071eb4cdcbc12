import itertools

import pytest
import torch

from fake_device import workload
from fake_nvml import FakeNvml
from faulty import FAULTS, Misbehaving
from mla_tune.environment import probe
from mla_tune.errors import EnvironmentFailure
from mla_tune.measuring import bench as bench_module
from mla_tune.measuring.bench import SessionBench
from mla_tune.measuring.load import OthersLoad
from mla_tune.measuring.stopwatch import CpuClock
from mla_tune.measuring.throttle import ThrottleWatch
from mla_tune.plan.failure import PlanFailure
from mla_tune.plan.kernel_resources import KernelResources
from mla_tune.plan.plan import Plan
from mla_tune.shapes import BatchShape, Case, Workload
from torch_mla_cases import SETUP

ONE, TWO = Plan(num_kv_splits=1), Plan(num_kv_splits=2)
SPEC = "2q1s300"


@pytest.fixture
def announced():
    return []


@pytest.fixture
def bench(monkeypatch, announced):
    monkeypatch.setattr(CpuClock, "SAMPLE_NS", 0)  # one pass a sample
    bench = SessionBench(probe("cpu"), lambda plan, step: announced.append((plan, step)))
    bench.open(SETUP)
    bench.load(workload(SPEC))
    yield bench
    bench.close()


def misbehave(bench, monkeypatch, fault):
    prepare = bench._session.prepare

    def prepare_faulty(shape, plan):
        prepared = prepare(shape, plan)
        return Misbehaving(prepared, fault) if plan == TWO else prepared

    monkeypatch.setattr(bench._session, "prepare", prepare_faulty)


def test_a_race_gives_each_plan_a_sample_a_round(bench):
    taken = bench.race([ONE, TWO], 5, seed=0)
    for samples in taken.values():
        assert len(samples.rounds) == 5
        assert all(len(row) == 1 and row[0] > 0 for row in samples.rounds)
        assert (samples.throttled, samples.tainted) == (0, "")


def test_a_race_samples_every_case_of_the_workload(bench):
    cases = tuple(Case(BatchShape.parse(f"2q1s{kv_len}")) for kv_len in (200, 300, 400))
    bench.load(Workload(cases))
    assert len(bench.race([ONE], 1, seed=0)[ONE].rounds[0]) == 3


def test_samples_say_the_most_that_a_kernel_takes_over_all_cases(bench, monkeypatch):
    cases = tuple(Case(BatchShape.parse(f"2q1s{kv_len}")) for kv_len in (200, 300))
    taken = {200: KernelResources(168, 0, 100), 300: KernelResources(128, 4, 200)}
    prepare = bench._session.prepare

    def prepare_compiled(shape, plan):
        prepared = prepare(shape, plan)
        prepared.resources = taken[shape.max_kv_len] if plan == TWO else None
        return prepared

    monkeypatch.setattr(bench._session, "prepare", prepare_compiled)
    bench.load(Workload(cases))
    found = bench.race([ONE, TWO], 1, seed=0)
    assert found[TWO].resources == KernelResources(168, 4, 200)
    assert found[ONE].resources is None
    more = found[TWO] + bench.race([ONE, TWO], 1, seed=1)[TWO]
    assert more.resources == KernelResources(168, 4, 200)


def test_a_race_of_some_cases_warms_up_and_samples_these_alone(bench, announced):
    cases = tuple(Case(BatchShape.parse(f"2q1s{kv_len}")) for kv_len in (200, 300, 400))
    bench.load(Workload(cases))
    announced.clear()
    (round_,) = bench.race([ONE], 1, 0, (0, 2))[ONE].rounds
    assert [us > 0 for us in round_] == [True, False, True]
    assert announced.count((ONE, "warm-up")) == 2


def test_plans_take_turns_in_an_order_that_changes(bench, announced):
    bench.race([ONE, TWO], 12, seed=0)
    sampled = [plan for plan, step in announced if step == "sample"]
    rounds = list(zip(sampled[::2], sampled[1::2], strict=True))
    assert all(set(pair) == {ONE, TWO} for pair in rounds)
    assert len(set(rounds)) == 2


def test_steps_that_could_hang_are_announced_first_and_warm_up_happens_once(bench, announced):
    bench.race([ONE], 2, seed=0)
    bench.race([ONE], 1, seed=0)
    bench.verify(ONE)
    steps = ["warm-up", "sample", "sample", "sample", "check"]
    assert announced == [(ONE, step) for step in steps]


def test_right_plans_verify(bench):
    for plan in bench.plan_space([BatchShape.parse(SPEC)]).plans:
        bench.verify(plan)


def test_a_plan_that_raises_is_named_with_the_first_line_of_its_error(bench, monkeypatch):
    misbehave(bench, monkeypatch, FAULTS["raises"])
    with pytest.raises(PlanFailure) as caught:
        bench.race([ONE, TWO], 1, seed=0)
    failure = caught.value
    assert (failure.kind, failure.plan) == ("raised", TWO)
    assert failure.what == "ValueError: bad plan [/tmp/x] in a message"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
    ],
)
def test_running_out_of_memory_is_told_from_other_errors(bench, monkeypatch, error):
    def boom(_output):
        raise error

    misbehave(bench, monkeypatch, boom)
    with pytest.raises(PlanFailure) as caught:
        bench.race([TWO], 1, seed=0)
    assert caught.value.kind == "out of memory"


def test_a_wrong_result_is_blamed_on_its_plan(bench, monkeypatch):
    misbehave(bench, monkeypatch, FAULTS["scales by 1 %"])
    with pytest.raises(PlanFailure) as caught:
        bench.verify(TWO)
    assert (caught.value.kind, caught.value.plan) == ("wrong result", TWO)


def test_ctrl_c_is_nobodys_failure(bench, monkeypatch):
    def interrupt(_output):
        raise KeyboardInterrupt

    misbehave(bench, monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        bench.race([TWO], 1, seed=0)


class Watch:
    """A device that is slowed down the first so many times it is asked."""

    def __init__(self, times):
        self.left = times

    def slowed_down(self):
        self.left -= 1
        return "too hot" if self.left >= 0 else None


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr(bench_module, "THROTTLE_PAUSE_S", 0.0)


def test_what_a_slowed_down_device_measured_is_taken_again(bench, no_pause):
    del no_pause
    bench._watch = Watch(2)
    samples = bench.race([ONE], 3, seed=0)[ONE]
    assert len(samples.rounds) == 3
    assert (samples.throttled, samples.tainted) == (6, "")


def test_samples_of_a_device_that_stays_slow_are_kept_and_say_so(bench, no_pause):
    del no_pause
    bench._watch = Watch(10**6)
    samples = bench.race([ONE], 3, seed=0)[ONE]
    assert len(samples.rounds) == 3
    assert samples.tainted == "too hot"


@pytest.fixture
def rests(monkeypatch, no_pause):
    """How long the device was left alone before each samples of a plan, in the order of time."""
    del no_pause
    rests = []
    ticks = itertools.count()
    monkeypatch.setattr(bench_module.time, "sleep", rests.append)
    monkeypatch.setattr(bench_module.time, "monotonic", lambda: float(next(ticks)))
    return rests


def test_a_device_that_was_slowed_down_rests_until_it_is_not(bench, rests, announced):
    bench._watch = Watch(2)
    pause = [0.0]
    bench.race([ONE, TWO], 2, seed=0)
    assert rests == pause + [1.0] * 3 + pause + [3.0] * 3
    assert [step for _, step in announced].count("rest") == len(rests)


def test_it_rests_as_long_for_the_same_workload_and_not_for_the_next(bench, rests):
    bench._watch = Watch(1)
    bench.race([ONE], 2, seed=0)
    rests.clear()
    bench.race([ONE], 2, seed=0)
    assert rests == [1.0]
    rests.clear()
    bench.load(workload("2q1s400"))
    bench.race([ONE], 2, seed=0)
    assert rests == []


def test_one_that_stays_slow_is_not_waited_for_any_longer(bench, rests):
    bench._watch = Watch(10**6)
    samples = bench.race([ONE], 2, seed=0)[ONE]
    assert (samples.throttled, samples.tainted) == (6, "too hot")
    rests.clear()
    samples = bench.race([ONE], 2, seed=0)[ONE]
    assert (samples.throttled, samples.tainted) == (0, "too hot")
    assert rests == [7.0]


def test_no_rest_is_longer_than_a_run_can_wait(bench, rests, monkeypatch):
    ticks = itertools.count(step=100)
    monkeypatch.setattr(bench_module.time, "monotonic", lambda: float(next(ticks)))
    bench._watch = Watch(1)
    bench.race([ONE], 2, seed=0)
    assert rests == [0.0, bench_module.LONGEST_REST_S]


class Load:
    def others(self):
        return OthersLoad("GPU", 0.4, (123,))


def test_what_other_processes_did_meanwhile_comes_with_the_samples(bench):
    bench._load = Load()
    taken = bench.race([ONE, TWO], 3, seed=0)
    assert {samples.others for samples in taken.values()} == {OthersLoad("GPU", 0.4, (123,))}


def test_a_clock_locked_meanwhile_is_no_plans_failure(bench, no_pause):
    del no_pause
    bench._watch = ThrottleWatch(FakeNvml([1005], reasons=2, max_mhz=1410).driver)
    with pytest.raises(EnvironmentFailure, match="locked at 1005 MHz"):
        bench.race([ONE], 3, seed=0)


def test_at_a_clock_that_is_locked_for_good_nothing_is_measured_twice(bench):
    bench._watch = ThrottleWatch(FakeNvml([1005], reasons=2, max_mhz=1410).driver, 1005)
    samples = bench.race([ONE], 3, seed=0)[ONE]
    assert (samples.throttled, samples.tainted) == (0, "")


def test_loading_another_workload_forgets_the_one_before(bench, announced):
    bench.race([ONE], 1, seed=0)
    bench.load(workload("2q1s400"))
    bench.race([ONE], 1, seed=0)
    assert [step for _, step in announced].count("warm-up") == 2
