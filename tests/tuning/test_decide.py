import random
from dataclasses import replace

import numpy as np
import pytest

from fake_device import DEFAULT, splits
from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.plan import UNTUNED
from mla_tune.table import Speedup
from mla_tune.tuning.decide import MIN_ROUNDS, Contest, slows
from mla_tune.tuning.speedups import WIDEST, is_too_wide


def rounds(latencies, noise=0.0, count=32, seed=0):
    """``count`` noisy rounds of latencies, one a case."""
    dice = random.Random(seed)
    return Samples(
        tuple(tuple(x * dice.lognormvariate(0, noise) for x in latencies) for _ in range(count))
    )


def contest(latencies, noise=0.0, count=32, shares=(1.0,), favourite=None, min_speedup=1.01):
    """A contest of plans by split count; the first is the default."""
    plans = [splits(count) for count in latencies]
    samples = {
        plan: rounds(np.atleast_1d(latencies[plan.get("num_kv_splits")]), noise, count, seed)
        for seed, plan in enumerate(plans)
    }
    return Contest(plans[0], samples, shares, min_speedup, favourite)


def test_a_plan_beyond_the_gate_is_published():
    verdict = contest({4: 100.0, 1: 90.0}, noise=0.02).verdict()
    assert verdict.plan == splits(1)


def test_a_plan_within_the_gate_is_not_published_however_sure():
    found = contest({4: 100.0, 1: 99.5}, noise=0.0001, count=64)
    assert found.standings[0].speedup.low > 1.0
    assert found.verdict().plan == UNTUNED


def test_a_plan_wins_by_its_median_and_other_processes_say_of_the_lower_end():
    mostly_faster = Samples(((100 / 1.05,),) * 9 + ((100 / 0.95,),) * 7)
    samples = {DEFAULT: rounds([100.0], count=16), splits(1): mostly_faster}
    found = Contest(DEFAULT, samples, (1.0,), 1.01)
    speedup = found.standings[0].speedup
    assert speedup.median == pytest.approx(1.05)
    assert speedup.low < 1.01
    assert found.verdict().plan == splits(1)


def test_min_speedup_moves_the_gate():
    assert contest({4: 100.0, 1: 90.0}, min_speedup=1.2).verdict().plan == UNTUNED
    assert contest({4: 100.0, 1: 90.0}, min_speedup=1.1).verdict().plan == splits(1)


def test_among_ties_the_fewest_splits_win():
    verdict = contest({4: 100.0, 16: 89.9, 2: 90.0, 8: 90.1}, noise=0.01).verdict()
    assert verdict.plan == splits(2)
    assert set(verdict.ties) == {splits(8), splits(16)}


def test_a_tie_that_is_not_surely_above_the_gate_does_not_stand_in_for_the_leader():
    samples = {
        DEFAULT: rounds([100.0], count=32),
        splits(1): Samples(((100 / 1.03,),) * 18 + ((100 / 0.97,),) * 14),
        splits(2): rounds([100 / 1.04], count=32),
    }
    found = Contest(DEFAULT, samples, (1.0,), 1.01)
    assert found.standings[1].speedup.median > 1.01 > found.standings[1].speedup.low
    verdict = found.verdict()
    assert (verdict.plan, verdict.ties) == (splits(2), (splits(1),))


def test_among_ties_last_nights_plan_stands():
    latencies = {4: 100.0, 16: 89.9, 2: 90.0, 8: 90.1}
    assert contest(latencies, noise=0.01, favourite=splits(8)).verdict().plan == splits(8)


def test_last_nights_plan_does_not_stand_against_a_clearly_better_one():
    verdict = contest({4: 100.0, 2: 70.0, 8: 90.0}, noise=0.01, favourite=splits(8)).verdict()
    assert verdict.plan == splits(2)
    assert verdict.ties == ()


def test_a_plan_that_slows_one_kv_length_is_not_published():
    found = contest({4: (100.0, 100.0), 1: (60.0, 105.0)}, noise=0.01, shares=(0.5, 0.5))
    assert found.standings[0].speedup.low > 1.1
    assert found.verdict().plan == UNTUNED


def test_cases_count_by_their_share():
    found = contest({4: (100.0, 100.0), 1: (50.0, 100.0)}, shares=(0.1, 0.9))
    assert found.standings[0].speedup.median == pytest.approx(1 / 0.95)


def test_equal_plans_are_ties_of_the_default():
    verdict = contest({4: 100.0, 1: 100.0}, noise=0.02).verdict()
    assert (verdict.plan, verdict.ties) == (UNTUNED, (splits(1),))


def test_drift_common_to_all_does_not_count():
    drift = np.linspace(1.0, 1.5, 32)
    samples = {
        DEFAULT: Samples(tuple((100.0 * d,) for d in drift)),
        splits(1): Samples(tuple((98.0 * d,) for d in drift)),
    }
    interval = Contest(DEFAULT, samples, (1.0,), 1.01).standings[0].speedup
    assert interval.low == pytest.approx(interval.high) == pytest.approx(1 / 0.98)


def test_a_confirmation_goes_on_until_it_is_clear():
    assert not contest({4: 100.0, 1: 90.0}, noise=0.001, count=8).is_settled
    assert contest({4: 100.0, 1: 90.0}, noise=0.001, count=16).is_settled
    assert not contest({4: 100.0, 1: 99.0}, noise=0.2, count=16).is_settled
    assert contest({4: 100.0}, count=2).is_settled


def test_fewer_than_16_rounds_publish_nothing_however_clear():
    enough = contest({4: 100.0, 1: 50.0}, noise=0.001, count=MIN_ROUNDS)
    assert enough.verdict().plan == splits(1)
    verdict = contest({4: 100.0, 1: 50.0}, noise=0.001, count=MIN_ROUNDS - 1).verdict()
    assert (verdict.plan, verdict.unproven) == (UNTUNED, splits(1))
    assert verdict.doubt.endswith("15 rounds are too few, 16 the least")


def test_a_few_rounds_without_a_gain_name_no_plan_but_settle_nothing():
    verdict = contest({4: 100.0, 1: 101.0}, noise=0.001, count=8).verdict()
    assert (verdict.plan, verdict.unproven) == (UNTUNED, None)
    assert "8 rounds are too few" in verdict.doubt
    slowing = contest({4: (100.0, 100.0), 1: (10.0, 105.0)}, count=8, shares=(0.5, 0.5)).verdict()
    assert slowing.unproven is None
    assert slowing.doubt


def test_with_nothing_to_confirm_the_default_takes_no_16_rounds():
    assert contest({4: 100.0}, count=8).verdict().doubt == ""


def test_an_interval_too_wide_to_mean_anything_publishes_nothing_however_far_above_the_gate():
    found = contest({4: 100.0, 1: 20.0}, noise=0.7)
    standing = found.standings[0]
    assert standing.speedup.low > 1.01
    assert standing.speedup.high > WIDEST * standing.speedup.low
    assert standing.clearly_faster
    assert not found.is_settled  # it measures on, while there is time
    verdict = found.verdict()
    assert (verdict.plan, verdict.unproven) == (UNTUNED, splits(1))
    assert str(standing.speedup) in verdict.doubt
    assert "too noisy" in verdict.doubt


def test_noise_that_is_common_to_all_plans_makes_no_interval_wide():
    bursts = [random.Random(0).choice((1.0, 1.0, 9.0)) for _ in range(32)]
    samples = {
        DEFAULT: Samples(tuple((100.0 * burst,) for burst in bursts)),
        splits(1): Samples(tuple((50.0 * burst,) for burst in bursts)),
    }
    assert Contest(DEFAULT, samples, (1.0,), 1.01).verdict().plan == splits(1)


def test_a_plan_with_one_kv_length_too_noisy_to_tell_is_not_published():
    quiet, noisy = rounds([100.0], 0.01, seed=1), rounds([1.0], 0.9, seed=2)
    default = Samples(tuple(a + b for a, b in zip(quiet.rounds, noisy.rounds, strict=True)))
    quiet, noisy = rounds([60.0], 0.01, seed=3), rounds([0.9], 0.9, seed=4)
    plan = Samples(tuple(a + b for a, b in zip(quiet.rounds, noisy.rounds, strict=True)))
    found = Contest(DEFAULT, {DEFAULT: default, splits(1): plan}, (0.5, 0.5), 1.01)
    assert not is_too_wide(found.standings[0].speedup)
    assert not found.standings[0].slows_a_case
    verdict = found.verdict()
    assert (verdict.plan, verdict.unproven) == (UNTUNED, splits(1))


def test_a_clear_plan_is_published_beside_one_too_noisy_to_tell():
    samples = {
        DEFAULT: rounds([100.0], 0.01, seed=1),
        splits(1): rounds([40.0], 0.9, seed=2),
        splits(2): rounds([50.0], 0.01, seed=3),
    }
    verdict = Contest(DEFAULT, samples, (1.0,), 1.01).verdict()
    assert (verdict.plan, verdict.doubt) == (splits(2), "")
    assert splits(1) in verdict.ties


def test_noise_around_no_gain_is_no_verdict_for_the_default_either():
    verdict = contest({4: 100.0, 1: 100.0}, noise=1.0).verdict()
    assert verdict.plan == UNTUNED
    assert "too noisy" in verdict.doubt
    clear = contest({4: 100.0, 1: 1000.0}, noise=1.0).verdict()
    assert (clear.plan, clear.doubt) == (UNTUNED, "")


def test_a_plan_that_slows_a_guard_is_not_published_whatever_it_gains():
    latencies = {4: [100.0, 200.0], 8: [90.0, 200.0], 1: [50.0, 210.0]}
    found = contest(latencies, noise=0.001, shares=(1.0, 0.0))
    assert [standing.slows_a_case for standing in found.standings] == [True, False]
    assert found.verdict().plan == splits(8)
    assert found.standings[1].speedup.median == pytest.approx(100 / 90, rel=0.01)


def kept(latencies, published, noise=0.0):
    """The verdict where the table publishes ``published``; the first is the default."""
    found = contest(latencies, noise, favourite=splits(published))
    return replace(found, published=splits(published)).verdict()


def test_what_is_published_goes_on_to_other_processes_while_it_is_faster_at_all():
    assert kept({4: 100.0, 1: 100 / 1.005}, published=1).plan == splits(1)
    assert contest({4: 100.0, 1: 100 / 1.005}).verdict().plan == UNTUNED
    assert kept({4: 100.0, 1: 100 / 0.999}, published=1).plan == UNTUNED


def test_what_is_published_does_not_stay_where_it_slows_a_case():
    found = contest({4: (100.0, 100.0), 1: (60.0, 105.0)}, noise=0.001, shares=(0.5, 0.5))
    assert replace(found, published=splits(1)).verdict().plan == UNTUNED


def test_what_is_published_at_the_gate_makes_room_for_a_clearly_better_plan():
    verdict = kept({4: 100.0, 1: 100 / 1.01, 2: 90.0}, published=1, noise=0.001)
    assert verdict.plan == splits(2)


@pytest.mark.parametrize(("num_cases", "is_slower"), [(1, True), (3, False), (10, False)])
def test_a_case_among_many_has_to_be_slower_more_clearly(num_cases, is_slower):
    assert slows(Speedup(median=0.992, low=0.985, high=0.999), num_cases) == is_slower
    assert slows(Speedup(median=0.992, low=0.99, high=0.994), num_cases)
    assert slows(Speedup(median=0.98, low=0.9, high=1.06), num_cases)
