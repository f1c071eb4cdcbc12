from dataclasses import replace

import pytest

from fake_device import DEFAULT, splits, workload
from mla_tune.measuring.load import OthersLoad
from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes import BatchShape, Case, Workload
from mla_tune.shapes.served_reach import ServedReach
from mla_tune.tuning.decide import Contest
from mla_tune.tuning.entry import outlasts_doubt, published_entry


def contest(latencies, default=DEFAULT, shares=(1.0,), count=16, **more):
    samples = {plan: Samples((cases,) * count, **more) for plan, cases in latencies.items()}
    return Contest(default, samples, shares, 1.01)


def test_a_winner_is_written_with_its_speed_up():
    found = contest({DEFAULT: (100.0,), splits(1): (50.0,)})
    entry = published_entry(workload("8q1s1k"), found, DEFAULT, {})
    assert (entry.shape, entry.plan, entry.default_plan) == ("8q1s1k", splits(1), DEFAULT)
    assert (entry.latency_us, entry.default_us) == (50.0, 100.0)
    assert entry.speedup.median == pytest.approx(2.0)
    assert (entry.cases, entry.note) == ((), "")


def test_when_nothing_is_better_the_default_is_written():
    found = contest({DEFAULT: (100.0,), splits(1): (100.0,)})
    entry = published_entry(workload(), found, DEFAULT, {})
    assert entry.plan == UNTUNED
    assert entry.ties == (splits(1),)
    assert entry.speedup is None
    assert entry.latency_us == entry.default_us == 100.0


def test_when_the_default_does_not_run_the_best_plan_is_named_and_not_published():
    found = contest({splits(1): (50.0,), splits(2): (60.0,)}, default=splits(1))
    entry = published_entry(workload(), found, DEFAULT, {DEFAULT: "died: SIGSEGV"})
    assert (entry.plan, entry.unproven) == (UNTUNED, splits(1))
    assert (entry.latency_us, entry.default_us, entry.speedup) == (50.0, None, None)
    assert entry.ties == ()
    assert entry.note == (
        "the default (num_kv_splits=4) could not be measured, so nothing is proven: died: SIGSEGV"
    )


def test_several_kv_lengths_are_written_one_by_one():
    cases = (Case(BatchShape.parse("8q1s1k"), 3.0), Case(BatchShape.parse("8q1s2k"), 1.0))
    found = contest({DEFAULT: (100.0, 300.0), splits(1): (50.0, 100.0)}, shares=(0.75, 0.25))
    entry = published_entry(Workload(cases), found, DEFAULT, {})
    assert entry.shape == "8q1s{1k,2k}"
    assert entry.latency_us == 0.75 * 50.0 + 0.25 * 100.0
    assert [(c.kv_len, c.weight, c.latency_us, c.default_us) for c in entry.cases] == [
        (1024, 3.0, 50.0, 100.0),
        (2048, 1.0, 100.0, 300.0),
    ]
    assert [c.speedup.median for c in entry.cases] == pytest.approx([2.0, 3.0])


def doubted(plan_us):
    """A contest of a plan that may be anything, beside one that took ``plan_us`` in turn."""
    rounds = {DEFAULT: [100.0] * 16, splits(8): [60.0, 140.0] * 8, splits(1): [*plan_us] * 8}
    samples = {plan: Samples(tuple((us,) for us in taken)) for plan, taken in rounds.items()}
    found = Contest(DEFAULT, samples, (1.0,), 1.01)
    assert "too noisy" in found.verdict().doubt
    return found


@pytest.mark.parametrize(
    ("plan_us", "stays"), [((102, 102), False), ((150, 150), False), ((70, 130), True)]
)
def test_what_was_proven_outlasts_a_doubt_unless_it_is_clearly_no_gain_now(plan_us, stays):
    before = published_entry(
        workload(), contest({DEFAULT: (100.0,), splits(1): (50.0,)}), DEFAULT, {}
    )
    assert before.plan == splits(1)
    assert outlasts_doubt(before, workload(), doubted(plan_us), {}) == stays


def test_failures_and_unclean_samples_are_noted():
    found = contest({DEFAULT: (100.0,)}, tainted="SM clock at 900 of 2000 MHz")
    note = published_entry(workload(), found, DEFAULT, {splits(8): "raised: boom"}).note
    assert "num_kv_splits=8 failed (raised: boom)" in note
    assert "no clean samples: SM clock at 900 of 2000 MHz" in note


def test_others_on_the_device_are_noted():
    found = contest({DEFAULT: (100.0,), splits(1): (50.0,)}, others=OthersLoad("GPU", 0.4, (123,)))
    note = published_entry(workload(), found, DEFAULT, {}).note
    assert note == "another process (pid 123) used up to 40% of the GPU meanwhile"


def test_a_backend_without_knobs_has_no_default_plan_to_name():
    entry = published_entry(workload(), contest({Plan(): (1.0,)}, default=Plan()), Plan(), {})
    assert (entry.plan, entry.default_plan) == (UNTUNED, UNTUNED)


def test_a_doubtful_winner_is_named_as_unproven_and_the_default_stays():
    found = contest({DEFAULT: (100.0,), splits(1): (50.0,)}, count=8)
    entry = published_entry(workload(), found, DEFAULT, {})
    assert (entry.plan, entry.unproven) == (UNTUNED, splits(1))
    assert (entry.latency_us, entry.default_us, entry.speedup) == (100.0, 100.0, None)
    assert entry.note == (
        "num_kv_splits=1 was 2.00× (2.00–2.00) as fast as the default: 8 rounds are too few, "
        "16 the least. A run with more --confirm-seconds, or on a quieter machine, goes on"
    )


def guarded_entry(holds_to):
    cases = [Case(BatchShape.parse("8q1s1k")), Case(BatchShape.parse(f"8q1s{holds_to}"), 0.0)]
    ragged = Case(BatchShape.parse("5q1s1k_3q1s9k"), 3.0)
    measured = Workload.of([*cases, ragged])
    found = contest(
        {DEFAULT: (100.0, 300.0, 200.0), splits(1): (50.0, 300.0, 100.0)}, shares=(0.25, 0.0, 0.75)
    )
    return measured, published_entry(measured, found, DEFAULT, {})


def test_guards_and_ragged_cases_stand_in_the_entry_of_what_is_listed():
    _, entry = guarded_entry("64k")
    assert (entry.shape, entry.weight, entry.holds_to) == ("8q1s1k", 4.0, 65536)
    assert entry.latency_us == 0.25 * 50.0 + 0.75 * 100.0
    assert [(c.kv_len, c.shape, c.weight) for c in entry.cases] == [
        (1024, None, 1.0),
        (65536, None, 0.0),
        (9216, "3q1s9k_5q1s1k", 3.0),
    ]


def test_what_was_measured_to_shorter_lengths_does_not_outlast_a_doubt():
    _, before = guarded_entry("32k")
    longer, _ = guarded_entry("64k")
    assert not outlasts_doubt(before, longer, doubted((70, 130)), {})
    assert outlasts_doubt(before, guarded_entry("16k")[0], doubted((70, 130)), {})


def test_what_was_guarded_by_a_record_outlasts_a_doubt_as_far_as_that_reached():
    near, far = (ServedReach(to=to, beyond=0.001) for to in (70_000, 90_000))
    whole, _ = guarded_entry("64k")
    measured = replace(whole, served=near)
    found = contest(
        {DEFAULT: (100.0, 300.0, 200.0), splits(1): (50.0, 300.0, 100.0)}, shares=(0.25, 0.0, 0.75)
    )
    before = published_entry(measured, found, DEFAULT, {})
    assert before.served == near
    stays = [
        outlasts_doubt(before, replace(whole, served=served), doubted((70, 130)), {})
        for served in (near, far, None)
    ]
    assert stays == [True, False, False]
