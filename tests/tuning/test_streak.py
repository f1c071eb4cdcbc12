import pickle

import pytest

from mla_tune.errors import WorkloadFailure
from mla_tune.tuning.streak import Streak


def wrong(shape, error, *plans):
    causes = [f"wrong result: {shape}: off by {error}, allowed 0.02" for _ in plans]
    return WorkloadFailure(f"no plan of {shape} could be measured", causes=causes)


def over_after(*errors):
    """After how many of ``errors`` a table is given up; 0 if after none."""
    streak = Streak()
    return next((n for n, error in enumerate(errors, start=1) if streak.is_over(error)), 0)


def test_one_cause_three_times_in_a_row_ends_a_table():
    errors = [wrong("8q1s1k", 0.079, 1), wrong("16q1s{1k,512}", 0.08, 1, 2), wrong("q1", 8e-2, 1)]
    assert over_after(*errors) == 3


def test_what_was_quarantined_by_an_earlier_run_is_the_same_cause():
    again = WorkloadFailure("again", causes=[f"quarantined: {wrong('8q1', 1.0, 1).causes[0]}"])
    assert over_after(again, wrong("8q1s2k", 2.0, 1), again) == 3


@pytest.mark.parametrize(
    "other", [WorkloadFailure("cannot load: bad"), wrong("8q1", 1.0, 1).__class__("died: SIGSEGV")]
)
def test_another_cause_between_begins_anew(other):
    error = wrong("8q1s1k", 0.08, 1)
    assert over_after(error, error, other, error, error) == 0


def test_a_workload_that_is_tuned_between_begins_anew():
    streak, error = Streak(), wrong("8q1s1k", 0.08, 1)
    assert not streak.is_over(error)
    assert not streak.is_over(error)
    streak.end()
    assert not streak.is_over(error)


def test_memory_that_runs_out_says_nothing_about_smaller_workloads():
    error = WorkloadFailure("cannot load: CUDA out of memory. Tried to allocate 2 GiB")
    assert over_after(*[error] * 9) == 0
    illegal = WorkloadFailure("cannot load: CUDA error: an illegal memory access")
    assert over_after(*[illegal] * 9) == 3


def test_causes_cross_a_process():
    error = pickle.loads(pickle.dumps(wrong("8q1s1k", 0.08, 1)))
    assert error.causes == wrong("8q1s1k", 0.08, 1).causes
