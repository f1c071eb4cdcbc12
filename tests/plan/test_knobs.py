import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.errors import InputError
from mla_tune.plan.knobs import KNOBS, KnobDomain, Plan, effective_plans
from mla_tune.shapes import BatchShape

SHAPES = (BatchShape.parse("q16_8q1s1k"), BatchShape.parse("8q4s300"))


@st.composite
def domains(draw):
    """Any domain; a knob without values is one the backend does not have."""
    thresholds = draw(st.lists(st.integers(1, 20), max_size=4))
    splits = draw(st.lists(st.sampled_from([1, 2, 4, 8, 64]), max_size=4))
    kernels = draw(st.lists(st.sampled_from("abc"), max_size=3))
    default = Plan(
        draw(st.integers(1, 20)) if thresholds else None,
        draw(st.sampled_from([1, 3, 4])) if splits else None,
        draw(st.sampled_from("abc")) if kernels else None,
    )
    return KnobDomain(default, tuple(thresholds), tuple(splits), tuple(kernels))


@st.composite
def executions(draw):
    """Any backend: what a plan does may depend on any of its knobs, or on none."""
    salt = draw(st.integers(0, 2**20))
    outcomes = draw(st.integers(1, 6))

    def arbitrary(shape, plan):
        return hash((salt, str(shape), *plan.as_dict().values())) % outcomes

    def by_paths(shape, plan):
        paths = []
        for query_len in shape.query_lens:
            decodes = query_len <= (plan.reorder_batch_threshold or 1)
            paths.append(("d", min(plan.num_kv_splits or 1, 8)) if decodes
                         else ("p", plan.prefill_backend))  # fmt: skip
        return tuple(paths)

    return draw(st.sampled_from([arbitrary, by_paths]))


def described(execution, plan):
    return tuple(execution(shape, plan) for shape in SHAPES)


@given(domains(), executions())
def test_every_assignment_does_what_exactly_one_effective_plan_does(domain, execution):
    space = effective_plans(domain, SHAPES, execution)
    done = [described(execution, plan.over(domain.default)) for plan in space.plans]
    assert len(set(done)) == len(done)
    assert {described(execution, plan) for plan in domain.assignments()} == set(done)
    assert len(set(space.plans)) == len(space.plans)


@given(domains(), executions())
def test_knobs_left_out_of_a_plan_make_no_difference_to_it(domain, execution):
    for plan in effective_plans(domain, SHAPES, execution).plans:
        full = plan.over(domain.default)
        idle = [knob for knob in KNOBS if getattr(plan, knob) is None]
        for values in itertools.product(*map(domain.values, idle)):
            variant = replace(full, **dict(zip(idle, values, strict=True)))
            assert described(execution, variant) == described(execution, full)


def test_of_two_knobs_that_matter_only_together_one_is_kept():
    def both(_shape, plan):
        return plan.num_kv_splits == 2 and plan.prefill_backend == "b"

    domain = KnobDomain(Plan(None, 1, "a"), (), (2,), ("b",))
    space = effective_plans(domain, SHAPES, both)
    assert len(space.plans) == 2
    assert space.default != Plan()
    assert space.plans[1] == Plan(None, 2, "b")


@given(domains(), executions())
def test_the_untuned_behaviour_comes_first(domain, execution):
    space = effective_plans(domain, SHAPES, execution)
    first = space.default.over(domain.default)
    assert described(execution, first) == described(execution, domain.default)
    assert first == domain.default
    assert space.assignments == len(domain.assignments())


def test_assignments_start_with_the_default_even_if_it_is_not_among_the_values():
    domain = KnobDomain(Plan(num_kv_splits=3), num_kv_splits=(1, 2))
    assert [plan.num_kv_splits for plan in domain.assignments()] == [3, 1, 2]


def test_when_nothing_matters_there_is_one_plan_without_knobs():
    domain = KnobDomain(Plan(1, 4, "a"), (1, 8), (1, 2, 4), ("a", "b"))
    space = effective_plans(domain, SHAPES, lambda _shape, _plan: "same")
    assert space.plans == (Plan(),)
    assert space.assignments == 12


counts = st.none() | st.integers(-1, 9)


@given(st.builds(Plan, counts, counts, st.none() | st.text()))
def test_a_plan_reads_back_from_what_a_table_stores(plan):
    assert Plan.from_dict(plan.as_dict()) == plan


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"num_splits": 2}, "unknown knob 'num_splits'"),
        ({"num_kv_splits": "2"}, "num_kv_splits is '2'"),
        ({"num_kv_splits": True}, "num_kv_splits is True"),
        ({"prefill_backend": 3}, "prefill_backend is 3"),
        ({"num_kv_splits": None}, "num_kv_splits is None"),
    ],
)
def test_a_bad_plan_is_refused(knobs, says):
    with pytest.raises(InputError) as caught:
        Plan.from_dict(knobs)
    assert says in caught.value.what
    assert caught.value.valid


def test_a_plan_takes_what_it_leaves_open_from_the_default():
    assert Plan(num_kv_splits=2).over(Plan(1, 4, "a")) == Plan(1, 2, "a")
