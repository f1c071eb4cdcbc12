from math import nan

import pytest

from fake_device import DEFAULT, splits
from mla_tune.measuring.stopwatch import Samples
from mla_tune.table import CaseResult, Entry, Speedup
from mla_tune.tuning.look import look_at, look_in

TWICE = Speedup(median=2.0, low=1.9, high=2.1)


def test_a_race_is_compared_over_all_cases_and_at_each():
    default = Samples(((100.0, 100.0),) * 3)
    plan = Samples(((50.0, 125.0),) * 3)
    together, (short, long) = look_at(default, plan, (0.5, 0.5))
    assert together.latency_us == 87.5
    assert together.default_us == 100.0
    assert together.speedup.median == pytest.approx(100 / 87.5)
    assert short.speedup.median == pytest.approx(2.0)
    assert long.speedup.median == pytest.approx(0.8)


def test_one_case_stands_for_itself():
    look = look_at(Samples(((100.0,),) * 3), Samples(((50.0,),) * 3), (1.0,))
    together = look.together
    assert look.cases == ()
    assert together.speedup.median == pytest.approx(2.0)


def test_an_entry_holds_what_its_process_saw():
    case = CaseResult(kv_len=1024, weight=1, latency_us=5.0, default_us=10.0, speedup=TWICE)
    entry = Entry(
        shape="8q1s{1k,2k}",
        plan=splits(1),
        default_plan=DEFAULT,
        latency_us=50.0,
        default_us=100.0,
        speedup=TWICE,
        cases=(case, case),
    )
    each = (5.0, 10.0, TWICE)
    assert look_in(entry) == ((50.0, 100.0, TWICE), (each, each))


def test_a_case_that_was_left_out_was_not_seen():
    default, plan = Samples(((100.0, nan),) * 3), Samples(((50.0, nan),) * 3)
    together, (first, second) = look_at(default, plan, (1.0, 0.0))
    assert second is None
    assert together == first
