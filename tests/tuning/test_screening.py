import pytest
import yaml
from tuner_cases import BETTER, screening

from fake_device import DEFAULT, FakeBench, splits, workload
from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.plan import UNTUNED
from mla_tune.table import Entry
from mla_tune.tuning.screening import is_hopeless


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
    assert bench.raced.count(("8q1s1k", (splits(1),))) == 1
    assert bench.raced.count(("8q1s1k", (splits(2),))) == 2


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
