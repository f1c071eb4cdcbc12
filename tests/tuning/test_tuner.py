import random

import pytest
import yaml

from fake_device import DEFAULT, FakeBench, splits, tuner_for, workload
from mla_tune.errors import WorkloadFailure
from mla_tune.shapes import BatchShape, Case, Workload
from mla_tune.table import Entry
from mla_tune.tuning.study import Journal, Policy

SLOWER = {DEFAULT: 100.0, splits(1): 150.0, splits(2): 120.0, splits(8): 110.0}
BETTER = {DEFAULT: 100.0, splits(1): 150.0, splits(2): 90.0, splits(8): 110.0}


def screening(bench):
    """Every plan that was raced alone, in order; a survivor is raced twice in a row."""
    return list(dict.fromkeys(plans[0] for _, plans in bench.raced if len(plans) == 1))


def test_the_fastest_plan_is_found(make_tuner):
    entry = make_tuner(FakeBench(BETTER, noise=0.02)).tune(workload())
    assert entry.plan == splits(2)
    assert entry.default_plan == DEFAULT
    assert entry.speedup.low > 1.05


def test_where_the_default_is_best_it_stays(make_tuner):
    entry = make_tuner(FakeBench(SLOWER, noise=0.02)).tune(workload())
    assert entry.plan is None


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


def finalists(make_tuner, latencies):
    """Split counts of the plans raced beside the default in the end."""
    bench = FakeBench({DEFAULT: 100.0} | latencies)
    make_tuner(bench).tune(workload())
    together = {plans for _, plans in bench.raced if len(plans) > 1}
    assert len(together) == 1
    first, *others = together.pop()
    assert first == DEFAULT
    return [plan.num_kv_splits for plan in others]


def test_the_confirmation_races_the_best_three_beside_the_default(make_tuner):
    latencies = {splits(count): 100 * 1.008**-count for count in range(5, 9)}
    assert finalists(make_tuner, latencies) == [8, 7, 6]


def test_the_confirmation_races_what_screening_cannot_rank_up_to_six(make_tuner):
    latencies = {splits(count): 90.0 - count / 100 for count in range(5, 13)}
    assert finalists(make_tuner, latencies) == [12, 11, 10, 9, 8, 7]


def test_what_is_published_was_verified_beside_the_default(make_tuner):
    bench = FakeBench(BETTER)
    entry = make_tuner(bench).tune(workload())
    checked = [plan for _, plan in bench.checked]
    assert DEFAULT in checked
    assert entry.plan in checked


def test_a_second_run_measures_nothing(make_tuner):
    tuner = make_tuner(FakeBench(BETTER, noise=0.02))
    first = tuner.tune(workload())
    tuner.journal.close()
    bench = FakeBench(BETTER, noise=0.02, seed=1)
    assert make_tuner(bench).tune(workload()) == first
    assert (bench.raced, bench.checked) == ([], [])


def test_when_time_runs_out_before_16_rounds_nothing_is_published_and_the_next_run_goes_on(
    make_tuner,
):
    tuner = make_tuner(FakeBench(BETTER, noise=0.02), confirmation_s=0.0)
    entry = tuner.tune(workload())
    assert (entry.plan, entry.unproven, entry.speedup) == (None, splits(2), None)
    assert entry.latency_us == entry.default_us
    assert "8 rounds are too few, 16 the least" in entry.note
    assert "--confirm-seconds" in entry.note
    tuner.journal.close()
    bench = FakeBench(BETTER, noise=0.02, seed=1)
    entry = make_tuner(bench).tune(workload())
    assert (entry.plan, entry.unproven, entry.note) == (splits(2), None, "")
    assert screening(bench) == []  # the trials stand


NOT_SURE = {"confirmation_s": 0.0}  # one step of 8 rounds


def in_doubt(make_tuner, bench, previous):
    """The entry of a run that has too little time, and what it said about the previous one."""
    told = []
    tuner = make_tuner(bench, **NOT_SURE)
    tuner.observer.kept = lambda workload, doubt: told.append((str(workload), doubt))
    return tuner.tune(workload(), previous), told


def proven(make_tuner, latencies=BETTER):
    tuner = make_tuner(FakeBench(latencies))
    entry = tuner.tune(workload())
    tuner.journal.close()
    return entry


def without_journal(folder):
    (folder / "study" / "a.journal").unlink()


@pytest.mark.parametrize("latencies", [BETTER, {DEFAULT: 100.0, splits(2): 100.5}])
def test_a_proven_entry_outlasts_a_later_run_that_ends_in_doubt(make_tuner, tmp_path, latencies):
    before = proven(make_tuner, latencies)
    without_journal(tmp_path)
    entry, told = in_doubt(make_tuner, FakeBench(latencies), before)
    assert entry == before
    assert [(key, "too few" in doubt) for key, doubt in told] == [("8q1s1k", True)]


def test_an_entry_that_was_not_proven_does_not_outlast_a_doubt(make_tuner, tmp_path):
    before = proven(make_tuner)
    before = before.model_copy(update={"plan": None, "unproven": before.plan, "default_us": None})
    without_journal(tmp_path)
    entry, told = in_doubt(make_tuner, FakeBench(BETTER), before)
    assert (entry.unproven, told) == (splits(2), [])
    assert "too few" in entry.note


@pytest.mark.parametrize("failing", [DEFAULT, splits(2)])
def test_a_plan_or_a_default_that_fails_now_ends_what_was_proven(make_tuner, tmp_path, failing):
    before = proven(make_tuner)
    without_journal(tmp_path)
    bench = FakeBench(BETTER, check_faults={failing: "wrong result"})
    entry, told = in_doubt(make_tuner, bench, before)
    assert (entry.plan, told) == (None, [])
    assert "wrong result" in entry.note


@pytest.mark.parametrize("seed", range(5))
def test_what_is_too_noisy_to_tell_is_measured_on_and_then_named_as_unproven(make_tuner, seed):
    bench = FakeBench({DEFAULT: 100.0, splits(2): 40.0}, noise=1.2, seed=seed)
    entry = make_tuner(bench).tune(workload())
    assert sum(len(plans) > 1 for _, plans in bench.raced) == 4  # all 32 rounds, in steps of 8
    assert (entry.plan, entry.unproven) == (None, splits(2))
    assert "too noisy to tell" in entry.note


def test_a_verdict_of_the_rules_of_an_earlier_version_is_confirmed_again(make_tuner):
    tuner = make_tuner(FakeBench(BETTER))
    tuner.tune(workload())
    ledger = tuner.journal.ledger("8q1s1k", list(BETTER), Policy())
    stored = ledger.verdict
    del stored["terms"]["widest"]
    ledger.decide(stored)
    tuner.journal.close()
    bench = FakeBench(BETTER)
    make_tuner(bench).tune(workload())
    assert bench.raced
    assert screening(bench) == []


def test_a_verdict_that_is_no_entry_any_more_is_found_again_from_the_same_trials(make_tuner):
    tuner = make_tuner(FakeBench(BETTER))
    found = tuner.tune(workload())
    ledger = tuner.journal.ledger("8q1s1k", tuple(BETTER), Policy())
    ledger.decide(ledger.verdict | {"entry": {"shape": "8q1s1k", "speed": 2.0}})
    tuner.journal.close()
    bench = FakeBench(BETTER)
    assert make_tuner(bench).tune(workload()) == found
    assert screening(bench) == []


def test_a_suspended_confirmation_has_not_spent_its_time(make_tuner):
    """The clock is the bench's, which stands still meanwhile; see `RunningClock`."""
    tuner = make_tuner(FakeBench(BETTER, noise=0.02), confirmation_s=30.0)
    tuner.clock = lambda: 0.0
    with pytest.MonkeyPatch.context() as patched:
        ticks = iter(range(0, 10**9, 3600))
        patched.setattr("time.monotonic", lambda: float(next(ticks)))
        assert tuner.tune(workload()).plan == splits(2)


def test_another_gate_is_another_verdict_from_the_same_trials(make_tuner):
    tuner = make_tuner(FakeBench(BETTER))
    assert tuner.tune(workload()).plan == splits(2)
    tuner.journal.close()
    bench = FakeBench(BETTER)
    assert make_tuner(bench, min_speedup=1.5).tune(workload()).plan is None
    assert screening(bench) == []


def test_other_weights_are_another_verdict(make_tuner):
    def over_lengths(weight):
        cases = (Case(BatchShape.parse("8q1s1k"), weight), Case(BatchShape.parse("8q1s2k"), 1.0))
        return Workload(cases)

    latencies = {DEFAULT: {1024: 100.0, 2048: 100.0}, splits(2): {1024: 50.0, 2048: 99.0}}
    tuner = make_tuner(FakeBench(latencies))
    rare = tuner.tune(over_lengths(0.1))
    often = tuner.tune(over_lengths(9.0))
    assert often.speedup.median > rare.speedup.median


def test_last_nights_plan_stands_among_ties(make_tuner):
    latencies = {DEFAULT: 100.0, splits(1): 90.0, splits(2): 90.0, splits(8): 90.0}
    previous = Entry(shape="8q1s1k", plan=splits(8), latency_us=90.0, default_us=100.0)
    entry = make_tuner(FakeBench(latencies, noise=0.02)).tune(workload(), previous)
    assert entry.plan == splits(8)


def test_plans_that_were_good_before_are_tried_first(make_tuner):
    bench = FakeBench(BETTER)
    previous = Entry(
        shape="8q1s1k", plan=splits(8), ties=(None, splits(2)), latency_us=90.0, default_us=100.0
    )
    neighbour = Entry(shape="8q1s2k", plan=splits(1), latency_us=90.0, default_us=100.0)
    make_tuner(bench).tune(workload(), previous, neighbour)
    assert screening(bench) == [DEFAULT, splits(8), splits(2), splits(1)]


def test_a_plan_has_to_serve_every_kv_length(make_tuner):
    cases = (Case(BatchShape.parse("8q1s1k")), Case(BatchShape.parse("8q1s2k")))
    latencies = {
        DEFAULT: {1024: 100.0, 2048: 100.0},
        splits(1): {1024: 50.0, 2048: 110.0},
        splits(2): {1024: 70.0, 2048: 92.0},
    }
    entry = make_tuner(FakeBench(latencies)).tune(Workload(cases))
    assert entry.plan == splits(2)
    assert len(entry.cases) == 2


def test_a_plan_that_slows_one_kv_length_does_not_drive_out_one_that_slows_none(make_tuner):
    """By expected latency it is far ahead, and what could be published would be screened out."""
    cases = (Case(BatchShape.parse("8q1s1k")), Case(BatchShape.parse("8q1s2k")))
    greedy = {splits(count): {1024: 20.0, 2048: 105.0 + count} for count in (1, 2, 8, 16)}
    latencies = {DEFAULT: {1024: 100.0, 2048: 100.0}} | greedy
    steady = {splits(32): {1024: 80.0, 2048: 95.0}}
    bench = FakeBench(latencies | steady, noise=0.005)
    assert make_tuner(bench).tune(Workload(cases)).plan == splits(32)
    assert all(set(plans) <= {DEFAULT, splits(32)} for _, plans in bench.raced if len(plans) > 1)


def test_a_single_plan_is_the_default(make_tuner):
    entry = make_tuner(FakeBench({DEFAULT: 100.0})).tune(workload())
    assert (entry.plan, entry.latency_us) == (None, 100.0)


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
    assert entry.plan is None
    assert splits(2) not in screening(bench)
    assert "quarantined: died: SIGSEGV" in entry.note


def test_a_wrong_plan_is_never_published_however_fast(make_tuner):
    bench = FakeBench(BETTER, check_faults={splits(2): "wrong result"})
    tuner = make_tuner(bench)
    entry = tuner.tune(workload())
    assert entry.plan is None
    assert "num_kv_splits=2 failed (wrong result" in entry.note
    assert tuner.quarantine.reason(tuner.ward, "8q1s1k", splits(2)).startswith("wrong result")


def test_a_wrong_fast_plan_does_not_hide_the_right_one_behind_it(make_tuner):
    latencies = {DEFAULT: 100.0, splits(1): 20.0, splits(2): 90.0}
    bench = FakeBench(latencies, check_faults={splits(1): "wrong result"})
    assert make_tuner(bench).tune(workload()).plan == splits(2)


@pytest.mark.parametrize("kind", FAILURES)
def test_when_the_default_fails_the_best_of_the_others_is_named_as_unproven(make_tuner, kind):
    entry = make_tuner(FakeBench(BETTER, race_faults={DEFAULT: kind})).tune(workload())
    assert (entry.plan, entry.unproven) == (None, splits(2))
    assert (entry.default_us, entry.speedup) == (None, None)
    assert "the default (num_kv_splits=4) could not be measured" in entry.note


def test_what_was_screened_out_by_a_plan_that_fails_later_gets_its_turn(make_tuner):
    latencies = {DEFAULT: 100.0, splits(1): 50.0, splits(2): 120.0}
    bench = FailsLater(latencies, race_faults={DEFAULT: "raised"}, later=splits(1))
    entry = make_tuner(bench).tune(workload())
    assert entry.unproven == splits(2)
    assert ("8q1s1k", splits(2)) in bench.checked


def test_nothing_unverified_is_published_when_all_that_was_verified_failed(make_tuner):
    bench = FailsLater(
        {DEFAULT: 100.0, splits(1): 50.0, splits(2): 120.0},
        race_faults={DEFAULT: "raised"},
        check_faults={splits(2): "wrong result"},
        later=splits(1),
    )
    with pytest.raises(WorkloadFailure, match="no plan of 8q1s1k"):
        make_tuner(bench).tune(workload())


class FailsLater(FakeBench):
    """A plan that works alone and dies in company."""

    def __init__(self, *args, later, **more):
        super().__init__(*args, **more)
        self.later = later

    def race(self, plans, rounds, seed):
        confirming = rounds >= 8
        self.race_faults = dict(self.race_faults) | ({self.later: "died"} if confirming else {})
        return super().race(plans, rounds, seed)


def test_a_finalist_that_dies_in_the_confirmation_is_out_and_the_rest_go_on(make_tuner):
    latencies = {DEFAULT: 100.0, splits(1): 80.0, splits(2): 90.0}
    tuner = make_tuner(FailsLater(latencies, later=splits(1)))
    entry = tuner.tune(workload())
    assert entry.plan == splits(2)
    assert tuner.quarantine.reason(tuner.ward, "8q1s1k", splits(1)).startswith("died")


def test_after_a_failure_the_defaults_output_is_taken_again(make_tuner):
    # The worker that died knew it; without it, rows the reference does not sample go unseen.
    latencies = {DEFAULT: 100.0, splits(1): 80.0, splits(2): 90.0}
    bench = FakeBench(latencies, check_faults={splits(1): "died"})
    make_tuner(bench).tune(workload())
    checked = [plan for _, plan in bench.checked]
    assert checked[checked.index(splits(1)) + 1 :] == [splits(2), DEFAULT, splits(2)]


def test_a_plan_that_failed_the_check_of_a_killed_run_is_not_tried_by_the_next(make_tuner):
    bench = FailsLater({DEFAULT: 100.0, splits(1): 80.0, splits(2): 90.0}, later=splits(1))
    tuner = make_tuner(bench)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mla_tune.tuning.tuner.published_entry", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            tuner.tune(workload())
    tuner.journal.close()
    bench = FakeBench(bench.latencies_us)
    assert make_tuner(bench).tune(workload()).plan == splits(2)
    assert splits(1) not in [plan for _, plan in bench.checked]
    assert all(splits(1) not in plans for _, plans in bench.raced)


def _interrupted(*_arguments):
    raise KeyboardInterrupt


def test_when_no_plan_runs_the_workload_fails_with_every_cause(make_tuner):
    bench = FakeBench({DEFAULT: 100.0, splits(1): 90.0},
                      race_faults={DEFAULT: "died", splits(1): "timed out"})  # fmt: skip
    with pytest.raises(WorkloadFailure) as caught:
        make_tuner(bench).tune(workload())
    assert "num_kv_splits=4: died" in caught.value.what
    assert "num_kv_splits=1: timed out" in caught.value.what


def test_failures_are_filed_under_what_they_are_true_for(make_tuner, tmp_path):
    make_tuner(FakeBench(BETTER, race_faults={splits(1): "died"})).tune(workload())
    filed = yaml.safe_load((tmp_path / "study" / "quarantine.yaml").read_text())["quarantine"]
    assert [(f["shape"], f["plan"], f["reason"]) for f in filed] == [
        ("8q1s1k", {"num_kv_splits": 1}, "died: scripted for num_kv_splits=1")
    ]


SEEDS = range(200)


def verdicts(tmp_path, latencies):
    """The plans published over `SEEDS` with 2 % noise."""
    published = []
    for seed in SEEDS:
        journal = Journal.in_memory()
        bench = FakeBench(latencies, noise=0.02, seed=random.Random(seed).getrandbits(32))
        published.append(tuner_for(bench, tmp_path, journal).tune(workload()).plan)
    return published


def test_of_equal_plans_none_is_published_in_any_of_200_runs(tmp_path):
    equal = dict.fromkeys((DEFAULT, splits(1), splits(2), splits(8), splits(16)), 100.0)
    assert verdicts(tmp_path, equal) == [None] * len(SEEDS)


def test_a_plan_that_is_10_percent_better_is_published_in_nearly_all_of_200_runs(tmp_path):
    latencies = dict.fromkeys((DEFAULT, splits(1), splits(8), splits(16)), 100.0)
    published = verdicts(tmp_path, latencies | {splits(2): 100.0 / 1.1})
    assert published.count(splits(2)) >= 195
    assert set(published) <= {splits(2), None}
