import json
import pickle

import pytest

from mla_tune.plan.failure import FailureKind, PlanFailure
from mla_tune.plan.plan import Plan

TWO = Plan(num_kv_splits=2)


def test_it_crosses_a_process_boundary_with_its_kind_and_its_plan():
    failure = PlanFailure("boom", plan=TWO, kind=FailureKind.OUT_OF_MEMORY, valid="v", remedy="r")
    copy = pickle.loads(pickle.dumps(failure))
    assert (copy.what, copy.plan, copy.valid, copy.remedy) == ("boom", TWO, "v", "r")
    assert copy.kind is FailureKind.OUT_OF_MEMORY


def test_the_same_failure_can_be_told_of_the_plan_that_was_asked_for():
    failure = PlanFailure("boom", plan=TWO, kind=FailureKind.DIED, valid="v", remedy="r")
    four = Plan(num_kv_splits=4)
    told = failure.about(four)
    assert (told.plan, told.kind, str(told)) == (four, FailureKind.DIED, str(failure))


@pytest.mark.parametrize(
    ("kind", "spelling"),
    [
        (FailureKind.RAISED, "raised"),
        (FailureKind.TIMED_OUT, "timed out"),
        (FailureKind.DIED, "died"),
        (FailureKind.OUT_OF_MEMORY, "out of memory"),
        (FailureKind.WRONG_RESULT, "wrong result"),
        (FailureKind.NOT_APPLIED, "not applied"),
    ],
)
def test_kinds_are_spelled_as_files_of_earlier_versions_have_them(kind, spelling):
    assert f"{kind}: {kind.value}" == f"{spelling}: {spelling}"
    assert json.dumps({"kind": kind}) == f'{{"kind": "{spelling}"}}'
    assert FailureKind(spelling) is kind


def test_all_but_a_knob_that_did_not_act_is_quarantined():
    free = [kind for kind in FailureKind if not kind.is_quarantined]
    assert free == [FailureKind.NOT_APPLIED]
