import itertools

import pytest
import yaml
from tuner_cases import BETTER, FailsBeside, screening, trials

from fake_device import DEFAULT, FakeBench, StickyClock, splits, workload
from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.plan import UNTUNED
from mla_tune.shapes import BatchShape, Case, Workload
from mla_tune.table import Entry
from mla_tune.tuning.screening import is_hopeless, paired


def test_screening_looks_at_the_fastest_sample():
    samples = Samples(((104.0,), (103.5,), (200.0,)))
    assert is_hopeless(samples, [1.0], 100.0)
    assert not is_hopeless(samples, [1.0], 101.0)


def test_every_plan_is_measured_once_the_default_first(make_tuner):
    bench = FakeBench(BETTER)
    make_tuner(bench).tune(workload())
    assert screening(bench) == list(BETTER)
    assert len(bench.raced) < 2 * len(BETTER) + 5


def test_a_hopeless_plan_is_dropped_after_three_samples(make_tuner):
    bench = FakeBench(BETTER)
    make_tuner(bench).tune(workload())
    tried = [plans[-1] for _, plans in trials(bench)]
    assert tried.count(splits(1)) == 1
    assert tried.count(splits(2)) == 2


def test_plans_that_were_good_before_are_tried_first(make_tuner):
    bench = FakeBench(BETTER)
    previous = Entry(
        shape="8q1s1k", plan=splits(8), ties=(UNTUNED, splits(2)), latency_us=90.0, default_us=100.0
    )
    neighbour = Entry(shape="8q1s2k", plan=splits(1), latency_us=90.0, default_us=100.0)
    make_tuner(bench).tune(workload(), previous, neighbour)
    assert screening(bench) == [DEFAULT, splits(8), splits(2), splits(1)]


FAILURES = ["raised", "timed out", "died", "out of memory"]


@pytest.mark.parametrize("kind", FAILURES)
def test_a_plan_that_fails_is_recorded_quarantined_and_passed_over(make_tuner, kind):
    bench = FakeBench(BETTER, race_faults={splits(1): kind})
    tuner = make_tuner(bench)
    entry = tuner.tune(workload())
    assert entry.plan == splits(2)
    assert f"num_kv_splits=1 failed ({kind}: scripted" in entry.note
    assert tuner.quarantine.reason(tuner.ward, "8q1s1k", splits(1)).startswith(kind)


def test_a_knob_that_did_not_reach_the_kernel_is_recorded_but_not_quarantined(make_tuner):
    tuner = make_tuner(FakeBench(BETTER, race_faults={splits(1): "not applied"}))
    assert "not applied" in tuner.tune(workload()).note
    assert tuner.quarantine.reason(tuner.ward, "8q1s1k", splits(1)) is None


def test_a_quarantined_plan_is_not_tried(make_tuner):
    bench = FakeBench(BETTER)
    tuner = make_tuner(bench)
    tuner.quarantine.add(tuner.ward, "8q1s1k", splits(2), "died: SIGSEGV")
    entry = tuner.tune(workload())
    assert entry.plan == UNTUNED
    assert splits(2) not in screening(bench)
    assert "quarantined: died: SIGSEGV" in entry.note


def test_a_wrong_plan_is_never_published_however_fast(make_tuner):
    bench = FakeBench(BETTER, check_faults={splits(2): "wrong result"})
    tuner = make_tuner(bench)
    entry = tuner.tune(workload())
    assert entry.plan == UNTUNED
    assert "num_kv_splits=2 failed (wrong result" in entry.note
    assert tuner.quarantine.reason(tuner.ward, "8q1s1k", splits(2)).startswith("wrong result")


def test_a_wrong_fast_plan_does_not_hide_the_right_one_behind_it(make_tuner):
    latencies = {DEFAULT: 100.0, splits(1): 20.0, splits(2): 90.0}
    bench = FakeBench(latencies, check_faults={splits(1): "wrong result"})
    assert make_tuner(bench).tune(workload()).plan == splits(2)


def test_failures_are_filed_under_what_they_are_true_for(make_tuner, tmp_path):
    make_tuner(FakeBench(BETTER, race_faults={splits(1): "died"})).tune(workload())
    filed = yaml.safe_load((tmp_path / "study" / "quarantine.yaml").read_text())["quarantine"]
    assert [(f["shape"], f["plan"], f["reason"]) for f in filed] == [
        ("8q1s1k", {"num_kv_splits": 1}, "died: scripted for num_kv_splits=1")
    ]


def test_a_plan_is_sampled_beside_the_best_so_far(make_tuner):
    bench = FakeBench(BETTER)
    make_tuner(bench).tune(workload())
    pairs = [tuple(plan["num_kv_splits"] for plan in plans) for _, plans in trials(bench)]
    assert pairs == [(4,), (4,), (4, 1), (4, 2), (4, 2), (2, 8)]


def test_a_latency_is_the_ratio_to_the_incumbent_times_what_it_took_in_its_own_trial():
    own, beside = Samples(((66.0, 9.0), (99.0, 9.0)), 3), Samples(((110.0, 10.0), (110.0, 20.0)))
    found = paired(own, beside, Samples(((100.0, 30.0), (90.0, 30.0), (120.0, 30.0))))
    assert found.rounds == ((pytest.approx(60.0), 27.0), (90.0, pytest.approx(13.5)))
    assert found.throttled == 3


@pytest.mark.parametrize("step_after", range(0, 80, 4))
def test_a_clock_that_steps_down_during_screening_costs_no_gain(make_tuner, step_after):
    """By 8 %, which is more than the gain and the screening factor together."""
    latencies = {splits(count): 100.0 + count for count in (1, 2, 8, 16, 32)} | {splits(64): 96.0}
    taken = itertools.count()
    bench = FakeBench(
        {DEFAULT: 100.0} | latencies,
        noise=0.005,
        seed=step_after,
        slowdown=lambda: 1.08 if next(taken) >= step_after else 1.0,
    )
    assert make_tuner(bench).tune(workload()).plan == splits(64)


@pytest.mark.parametrize("seed", range(10))
def test_a_clock_that_steps_up_and_down_costs_no_gain(make_tuner, seed):
    latencies = {splits(count): 100.0 + count for count in (1, 2, 8, 16, 32)} | {splits(64): 95.0}
    bench = FakeBench({DEFAULT: 100.0} | latencies, noise=0.01, seed=seed)
    bench.slowdown = StickyClock(slow=1.08, samples=40, seed=seed)
    assert make_tuner(bench).tune(workload()).plan == splits(64)


def test_a_clock_that_steps_down_makes_no_kv_length_look_slowed(make_tuner):
    lengths = Workload(tuple(Case(BatchShape.parse(f"8q1s{kv_len}k")) for kv_len in (1, 2)))
    even = {1024: 100.0, 2048: 100.0}
    taken = itertools.count()
    bench = FakeBench(
        {DEFAULT: even, splits(1): {1024: 90.0, 2048: 99.0}},
        noise=0.001,
        slowdown=lambda: 1.03 if next(taken) >= 8 else 1.0,
    )
    assert make_tuner(bench).tune(lengths).plan == splits(1)


def test_an_incumbent_that_fails_beside_a_plan_makes_room_for_the_next_best(make_tuner):
    latencies = {DEFAULT: 100.0, splits(1): 90.0, splits(2): 80.0}
    bench = FailsBeside(latencies, dying=splits(1), other=splits(2))
    tuner = make_tuner(bench)
    assert tuner.tune(workload()).plan == splits(2)
    assert (DEFAULT, splits(2)) in [plans for _, plans in trials(bench)]
    assert tuner.quarantine.reason(tuner.ward, "8q1s1k", splits(1)).startswith("died")


def guarded(*at_guards):
    """A graph's workload of three listed lengths, with guards at 16k, 32k …, and latencies there.

    Args:
        at_guards: of each of splits(1), splits(2) …, its latencies at the guards.
    """
    lengths = [1024, 2048, 4096]
    guards = [16384 << number for number in range(len(at_guards[0]))]
    cases = [Case(BatchShape.parse(f"8q1s{n}"), float(n in lengths)) for n in (*lengths, *guards)]
    latencies = {DEFAULT: dict.fromkeys([*lengths, *guards], 100.0)}
    for number, at in enumerate(at_guards):
        listed = dict.fromkeys(lengths, 80.0 - number)
        latencies[splits(number + 1)] = listed | dict(zip(guards, at, strict=True))
    return Workload(tuple(cases)), latencies


class Watched(FakeBench):
    """Keeps the cases of each race."""

    def race(self, plans, rounds, seed, cases=None):
        self.asked = [*getattr(self, "asked", []), (plans[-1], rounds, cases)]
        return super().race(plans, rounds, seed, cases)


def guard_rounds(bench, plan):
    """Rounds of each race of guards alone that ``plan`` was on trial in."""
    return [
        (rounds, cases)
        for tried, rounds, cases in bench.asked
        if tried == plan and cases is not None and min(cases) >= 3
    ]


def test_a_guard_that_one_sample_clears_is_not_sampled_again(make_tuner):
    lengths, latencies = guarded((90.0, 100.0))
    bench = Watched(latencies)
    assert make_tuner(bench).tune(lengths).plan == splits(1)
    assert guard_rounds(bench, splits(1)) == [(1, (3, 4))]


def test_a_plan_that_slows_a_guard_makes_no_mark_and_is_not_published(make_tuner):
    lengths, latencies = guarded((100.0, 103.0), (90.0, 95.0))
    bench = Watched(latencies)
    assert make_tuner(bench).tune(lengths).plan == splits(2)
    assert guard_rounds(bench, splits(1)) == [(1, (3, 4)), *[(1, (4,))] * 7]
    assert bench.asked[-1][0] != splits(1)


def test_a_guard_that_is_clearly_slower_takes_three_rounds(make_tuner):
    lengths, latencies = guarded((90.0, 150.0))
    bench = Watched(latencies)
    assert not make_tuner(bench).tune(lengths).plan
    assert guard_rounds(bench, splits(1)) == [(1, (3, 4)), (1, (4,)), (1, (4,))]


def test_a_plan_that_is_screened_out_is_not_sampled_at_guards(make_tuner):
    lengths, latencies = guarded((90.0,), (90.0,))
    latencies[splits(2)] |= dict.fromkeys((1024, 2048, 4096), 90.0)
    bench = Watched(latencies)
    assert make_tuner(bench).tune(lengths).plan == splits(1)
    assert guard_rounds(bench, splits(2)) == []


def test_most_of_many_cases_far_behind_drop_a_plan_after_one_round(make_tuner):
    lengths, latencies = guarded((90.0,), (90.0,))
    latencies[splits(2)] |= dict.fromkeys((1024, 2048, 4096), 130.0)
    bench = Watched(latencies)
    make_tuner(bench).tune(lengths)
    assert [rounds for plan, rounds, _ in bench.asked if plan == splits(2)] == [1]


def test_a_default_that_fails_beside_a_plan_is_not_the_plans_doing(make_tuner):
    lengths, latencies = guarded((90.0,), (90.0,))

    class FailsAtGuards(Watched):
        def race(self, plans, rounds, seed, cases=None):
            beside = len(plans) == 2 and cases is not None and min(cases) >= 3
            self.race_faults = {DEFAULT: "died"} if beside else {}
            return super().race(plans, rounds, seed, cases)

    tuner = make_tuner(FailsAtGuards(latencies))
    entry = tuner.tune(lengths)
    assert entry.unproven == splits(2)
    reason = [tuner.quarantine.reason(tuner.ward, lengths.measured_key, plan) for plan in latencies]
    assert [bool(each) for each in reason] == [True, False, False]
