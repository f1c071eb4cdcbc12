import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.errors import InputError
from mla_tune.plan.knob import KNOBS
from mla_tune.plan.plan import UNTUNED, Plan

VALUES = {int: st.integers(-1, 2**40), str: st.text(max_size=9)}


@st.composite
def knob_values(draw):
    """Values for some of the knobs, in any order."""
    names = draw(st.lists(st.sampled_from(list(KNOBS)), unique=True))
    return {name: draw(VALUES[KNOBS[name].kind]) for name in names}


@given(knob_values())
def test_a_plan_is_a_mapping_of_what_it_was_made_of(values):
    plan = Plan(**values)
    assert plan == values
    assert {name: plan[name] for name in plan} == values
    assert len(plan) == len(values)
    assert bool(plan) == bool(values)
    assert {name: plan.get(name) for name in KNOBS} == {name: values.get(name) for name in KNOBS}


@given(knob_values())
def test_a_plan_reads_back_from_what_a_table_and_a_journal_store(values):
    plan = Plan(**values)
    assert Plan.from_dict(dict(plan)) == plan
    assert Plan.from_dict(json.loads(json.dumps(dict(plan)))) == plan
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert copy.deepcopy(plan) == plan


@given(knob_values(), st.randoms())
def test_plans_of_the_same_values_are_one_and_are_written_alike(values, shuffled):
    names = list(values)
    shuffled.shuffle(names)
    one, other = Plan(**values), Plan(**{name: values[name] for name in names})
    assert one == other
    assert hash(one) == hash(other)
    assert (str(one), repr(one), list(one)) == (str(other), repr(other), list(other))
    assert list(one) == [name for name in KNOBS if name in values]


@given(knob_values(), knob_values())
def test_plans_of_other_values_are_unequal(one, other):
    assert (Plan(**one) == Plan(**other)) == (one == other)


@given(knob_values(), knob_values())
def test_a_plan_takes_what_it_leaves_open_from_the_default(own, default):
    assert Plan(**own).over(Plan(**default)) == default | own
    assert Plan(**default).having(**own) == default | own
    kept = {name: value for name, value in default.items() if name not in own}
    assert Plan(**default).without(*own) == kept


def test_a_plan_cannot_be_changed():
    plan = Plan(num_kv_splits=2)
    with pytest.raises(TypeError):
        plan["num_kv_splits"] = 4
    with pytest.raises(TypeError):
        del plan["num_kv_splits"]
    with pytest.raises(AttributeError, match="cannot be changed"):
        plan.num_kv_splits = 4
    with pytest.raises(AttributeError, match="cannot be changed"):
        del plan._values
    assert plan == Plan(num_kv_splits=2)


def test_a_plan_is_as_it_was_when_what_it_was_made_of_changes():
    values = {"num_kv_splits": 2}
    plan = Plan.from_dict(values)
    values["num_kv_splits"] = 4
    assert plan["num_kv_splits"] == 2


def test_the_empty_plan_is_false_and_says_that_no_knob_is_set():
    assert not Plan()
    assert str(Plan()) == "no knobs"
    assert Plan() == UNTUNED
    assert (Plan() or "the default") == "the default"


def test_knobs_are_read_by_their_type():
    plan = Plan(num_kv_splits=2, prefill_backend="fa3")
    assert (plan.number("num_kv_splits"), plan.text("prefill_backend")) == (2, "fa3")
    assert plan.number("reorder_batch_threshold") is None
    with pytest.raises(AssertionError):
        plan.number("prefill_backend")
    with pytest.raises(AssertionError):
        plan.text("num_kv_splits")


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"num_splits": 2}, "unknown knob 'num_splits'"),
        ({"self": 2}, "unknown knob 'self'"),
        ({7: 2}, "unknown knob 7"),
        ({"num_kv_splits": "2"}, "num_kv_splits is '2'"),
        ({"num_kv_splits": True}, "num_kv_splits is True"),
        ({"num_kv_splits": 2.0}, "num_kv_splits is 2.0"),
        ({"prefill_backend": 3}, "prefill_backend is 3"),
        ({"num_kv_splits": None}, "num_kv_splits is None"),
    ],
)
def test_a_bad_plan_is_refused(knobs, says):
    with pytest.raises(InputError) as caught:
        Plan.from_dict(knobs)
    assert says in caught.value.what
    assert caught.value.valid


def test_of_tied_plans_the_fewest_splits_come_first_then_the_threshold_then_the_prefill():
    plans = (
        Plan(),
        Plan(prefill_backend="fa2"),
        Plan(reorder_batch_threshold=4, prefill_backend="fa3"),
        Plan(reorder_batch_threshold=512, prefill_backend="fa2"),
        Plan(num_kv_splits=-1),
        Plan(num_kv_splits=2),
        Plan(num_kv_splits=16),
    )
    backwards = plans[::-1]
    assert tuple(sorted(backwards, key=lambda plan: plan.tie_key)) == plans
