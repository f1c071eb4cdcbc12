from datetime import datetime

import pytest

from fake_device import DEFAULT, splits
from mla_tune.cli.decision_view import ScreenedBest, told_since
from mla_tune.plan.plan import UNTUNED
from mla_tune.table import Entry, Speedup
from mla_tune.tuning.study import Outcome

SPEEDUP = Speedup(median=2.0, low=1.9, high=2.1)
FIGURES = {"shape": "8q1s1k", "default_plan": DEFAULT, "latency_us": 50.0, "default_us": 100.0}
WON = Entry(plan=splits(2), ties=(splits(1),), speedup=SPEEDUP, **FIGURES)
KEPT = Entry(plan=UNTUNED, note="num_kv_splits=8, num_kv_splits=1 failed (died)", **FIGURES)
UNPROVEN = Entry(plan=UNTUNED, unproven=splits(2), **FIGURES)


@pytest.mark.parametrize(
    ("best", "us", "entry", "told"),
    [
        (splits(2), 50.5, WON, ""),
        (splits(2), 40.0, WON, " (40.0 µs when screened)"),
        (splits(1), 49.0, WON, " (best when screened: num_kv_splits=1, 49.0 µs; tied)"),
        (splits(8), 49.0, WON, "; not as fast when confirmed)"),
        (splits(8), 40.0, KEPT, "; failed later)"),
        (splits(2), 50.0, UNPROVEN, ""),
        (DEFAULT, 50.0, KEPT, ""),
    ],
)
def test_what_looked_best_and_is_not_published_has_a_reason(best, us, entry, told):
    seen = ScreenedBest()
    seen.tried(Outcome(splits(16), 90.0), 90.0)
    seen.tried(Outcome(best, us), us)
    seen.tried(Outcome(splits(4), 200.0), us)
    assert seen.difference(entry).endswith(told)
    assert bool(seen.difference(entry)) == bool(told)


def test_of_what_was_not_tried_in_this_run_nothing_is_said():
    assert ScreenedBest().difference(WON) == ""


def test_when_something_was_measured_is_told_once_or_as_a_span():
    first, last = datetime(2026, 11, 20, 9, 5, 59), datetime(2026, 11, 21, 10, 0)
    assert told_since([]) == ""
    assert told_since([first]) == "2026-11-20 09:05"
    assert told_since([last, first]) == "2026-11-20 09:05 to 2026-11-21 10:00"
