from dataclasses import replace

import pytest
from search_cases import recording, track

from fake_device import splits
from mla_tune.shapes import BatchShape, Case, Workload
from search_halves import Judge, choices, played


def halved(default, other):
    """A workload of a default and another plan, with these rounds."""
    found = track(1.0, 1.0)
    return replace(found, rounds=dict(zip(found.plans, (default, other), strict=True)))


def test_what_is_played_does_not_judge():
    found = halved([(10.0,)] * 8, [(5.0,)] * 4 + [(20.0,)] * 4)
    (earlier,) = played(recording(found)).tracks
    assert earlier.rounds == {splits(1): [(10.0,)] * 4, splits(2): [(5.0,)] * 4}
    assert Judge.of_earlier(found).best == splits(2)
    assert Judge.of_later(found).best == splits(1)
    assert Judge.of_later(found).regret(splits(2)) == pytest.approx(1.0)
    assert Judge.of_later(found).loss(splits(2)) == pytest.approx(1.0)


def test_each_round_of_an_odd_number_is_in_one_half():
    found = halved([(float(number),) for number in range(1, 6)], [(1.0,)] * 5)
    (earlier,) = played(recording(found)).tracks
    assert earlier.rounds[splits(1)] == [(1.0,), (2.0,)]
    assert Judge.of_later(found).expected_us[splits(1)] == pytest.approx(4.0)


def test_one_round_of_five_that_was_disturbed_does_not_count():
    found = halved([(9.0,)] * 10, [(10.0,)] * 9 + [(1000.0,)])
    assert Judge.of_later(found).expected_us[splits(2)] == 10.0


def test_a_workload_with_nothing_to_choose_is_left_out():
    alone, seldom, whole = track(10.0), track(10.0, 9.0, rounds=3), track(10.0, 9.0)
    without_default = replace(whole, rounds={splits(2): whole.rounds[splits(2)]})
    found = choices(recording(alone, seldom, without_default, whole))
    assert [each.plans for each in found.tracks] == [whole.plans]


def test_a_plan_that_slows_down_a_kv_length_is_not_the_best():
    cases = tuple(Case(BatchShape.parse(spec)) for spec in ("8q1s1k", "8q1s4k"))
    found = halved([(10.0, 40.0)] * 8, [(10.2, 20.0)] * 8)
    judge = Judge.of_later(replace(found, workload=Workload(cases)))
    assert judge.slows_a_length(splits(2))
    assert judge.best == splits(1)
    assert (judge.regret(splits(1)), judge.regret(splits(2))) == (0.0, 0.0)
