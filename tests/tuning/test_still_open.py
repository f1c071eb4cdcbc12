import random

import pytest

from fake_device import DEFAULT, splits
from mla_tune.measuring.stopwatch import Samples
from mla_tune.tuning.decide import Contest
from mla_tune.tuning.still_open import open_cases, open_plans

SHARES = (1.0, 0.0, 0.0)  # one listed length and two guards
ROUNDS = 8


def contest(**gains):
    """Plans by split count, with their gain at each case; all of them in all rounds."""
    draw = random.Random(0)

    def samples(*latencies_us):
        return Samples(
            tuple(
                tuple(us * draw.lognormvariate(0.0, 0.003) for us in latencies_us)
                for _ in range(ROUNDS)
            )
        )

    raced = {DEFAULT: samples(100.0, 100.0, 100.0)}
    for name, at in gains.items():
        raced[splits(int(name[1:]))] = samples(*(100.0 / gain for gain in at))
    return Contest(DEFAULT, raced, SHARES, 1.01)


def test_who_is_far_behind_a_leader_that_nothing_can_refute_is_out():
    found = contest(s1=(2.0, 1.5, 1.2), s2=(1.99, 1.1, 1.1), s8=(1.8, 1.5, 1.2))
    assert open_plans(found) == [DEFAULT, splits(1), splits(2)]


def test_nobody_is_behind_a_leader_that_may_slow_a_guard():
    found = contest(s1=(2.0, 1.5, 1.0), s8=(1.8, 1.5, 1.02))
    assert open_plans(found) == [DEFAULT, splits(1), splits(8)]


def test_who_clearly_slows_a_guard_is_out_however_fast():
    found = contest(s1=(3.0, 1.5, 0.9), s2=(2.0, 1.5, 1.2))
    assert open_plans(found) == [DEFAULT, splits(2)]


def test_where_all_slow_a_guard_they_stay_for_a_verdict():
    assert open_plans(contest(s1=(3.0, 1.5, 0.9))) == [DEFAULT, splits(1)]


@pytest.mark.parametrize(("gain", "cases"), [(1.2, (0, 1)), (1.03, (0, 1, 2)), (0.9, (0, 1, 2))])
def test_guards_near_a_loss_or_beyond_are_measured_on(gain, cases):
    found = contest(s1=(1.02, 1.0, gain))
    assert open_cases(found, open_plans(found)) == cases


def test_a_guard_counts_for_those_alone_who_are_raced_on():
    found = contest(s1=(2.0, 1.5, 1.2), s8=(1.8, 1.0, 1.0))
    assert open_cases(found, open_plans(found)) == (0,)
