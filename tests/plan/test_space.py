import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.plan.plan import Plan
from mla_tune.plan.space import KnobDomain, effective_plans
from mla_tune.shapes import BatchShape

SHAPES = (BatchShape.parse("q16_8q1s1k"), BatchShape.parse("8q4s300"))

# Values to try, and those that a backend may have by itself.
VALUES = {
    "reorder_batch_threshold": (st.integers(1, 20), st.integers(1, 20)),
    "num_kv_splits": (st.sampled_from([1, 2, 4, 8, 64]), st.sampled_from([1, 3, 4])),
    "prefill_backend": (st.sampled_from("abc"), st.sampled_from("abc")),
}


def domain_of(default: Plan, **tried) -> KnobDomain:
    return KnobDomain(default, tried)


@st.composite
def domains(draw):
    """Any domain, of some of the knobs."""
    tried = {
        knob: draw(st.lists(values, min_size=1, max_size=4))
        for knob, (values, _) in VALUES.items()
        if draw(st.booleans())
    }
    return KnobDomain(Plan(**{knob: draw(VALUES[knob][1]) for knob in tried}), tried)


@st.composite
def executions(draw):
    """Any backend: what a plan does may depend on any of its knobs, or on none."""
    salt = draw(st.integers(0, 2**20))
    outcomes = draw(st.integers(1, 6))

    def arbitrary(shape, plan):
        return hash((salt, str(shape), *plan.values())) % outcomes

    def by_paths(shape, plan):
        paths = []
        for query_len in shape.query_lens:
            decodes = query_len <= plan.get("reorder_batch_threshold", 1)
            paths.append(("d", min(plan.get("num_kv_splits", 1), 8)) if decodes
                         else ("p", plan.get("prefill_backend")))  # fmt: skip
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
        idle = [knob for knob in domain.default if knob not in plan]
        for values in itertools.product(*map(domain.values, idle)):
            variant = full.having(**dict(zip(idle, values, strict=True)))
            assert described(execution, variant) == described(execution, full)


def test_of_two_knobs_that_matter_only_together_one_is_kept():
    def both(_shape, plan):
        return plan["num_kv_splits"] == 2 and plan["prefill_backend"] == "b"

    default = Plan(num_kv_splits=1, prefill_backend="a")
    domain = domain_of(default, num_kv_splits=(2,), prefill_backend=("b",))
    space = effective_plans(domain, SHAPES, both)
    assert len(space.plans) == 2
    assert space.default != Plan()
    assert space.plans[1] == Plan(num_kv_splits=2, prefill_backend="b")


@given(domains(), executions())
def test_the_untuned_behaviour_comes_first(domain, execution):
    space = effective_plans(domain, SHAPES, execution)
    first = space.default.over(domain.default)
    assert described(execution, first) == described(execution, domain.default)
    assert first == domain.default
    assert space.assignments == len(domain.assignments())


def test_assignments_start_with_the_default_even_if_it_is_not_among_the_values():
    domain = domain_of(Plan(num_kv_splits=3), num_kv_splits=(1, 2))
    assert [plan["num_kv_splits"] for plan in domain.assignments()] == [3, 1, 2]


def test_a_knob_without_values_to_try_keeps_the_defaults():
    default = Plan(reorder_batch_threshold=7, num_kv_splits=3)
    domain = domain_of(default, num_kv_splits=(1,))
    assert domain.assignments() == [default, default.having(num_kv_splits=1)]


def test_values_of_a_knob_that_the_default_does_not_set_are_refused():
    with pytest.raises(ValueError, match="num_kv_splits"):
        domain_of(Plan(reorder_batch_threshold=1), num_kv_splits=(1, 2))
    assert domain_of(Plan(), num_kv_splits=()).assignments() == [Plan()]


def test_when_nothing_matters_there_is_one_plan_without_knobs():
    default = Plan(reorder_batch_threshold=1, num_kv_splits=4, prefill_backend="a")
    domain = domain_of(
        default,
        reorder_batch_threshold=(1, 8),
        num_kv_splits=(1, 2, 4),
        prefill_backend=("a", "b"),
    )
    space = effective_plans(domain, SHAPES, lambda _shape, _plan: "same")
    assert space.plans == (Plan(),)
    assert space.assignments == 12
