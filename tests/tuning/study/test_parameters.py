import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, IntDistribution

from mla_tune.plan.plan import Plan
from mla_tune.tuning.study.parameters import Parameters

DECODE = [
    Plan(reorder_batch_threshold=16, num_kv_splits=1),
    Plan(reorder_batch_threshold=16, num_kv_splits=8),
]
PREFILL = [Plan(reorder_batch_threshold=1, prefill_backend=name) for name in ("fa3", "trtllm")]
BOTH = Parameters(
    [*PREFILL, *DECODE],
    Plan(reorder_batch_threshold=1, num_kv_splits=4, prefill_backend="fa3"),
)


def test_each_knob_in_which_plans_differ_is_a_parameter_under_its_own_name():
    assert BOTH.distributions == {
        "reorder_batch_threshold": IntDistribution(1, 16, log=True),
        "num_kv_splits": IntDistribution(1, 8, log=True),
        "prefill_backend": CategoricalDistribution(["fa3", "trtllm"]),
    }
    alike = [Plan(num_kv_splits=2, num_warps=4), Plan(num_kv_splits=8, num_warps=4)]
    assert list(Parameters(alike).distributions) == ["num_kv_splits"]


def test_an_idle_knob_has_the_value_that_the_backend_has_untuned():
    assert BOTH.of(PREFILL[1]) == {
        "reorder_batch_threshold": 1,
        "num_kv_splits": 4,
        "prefill_backend": "trtllm",
    }
    assert BOTH.of(DECODE[1])["prefill_backend"] == "fa3"


def test_a_value_that_nobody_knows_is_left_out():
    recorded = Parameters([*PREFILL, *DECODE])
    assert recorded.of(PREFILL[1]).keys() == {"reorder_batch_threshold", "prefill_backend"}


@pytest.mark.parametrize("own_choice", [0, -1])
def test_a_number_that_stands_for_a_choice_makes_the_knob_a_category(own_choice):
    plans = [Plan(num_kv_splits=value) for value in (own_choice, 2, 1)]
    choices = CategoricalDistribution([own_choice, 1, 2])
    assert Parameters(plans).distributions == {"num_kv_splits": choices}


def test_the_grid_has_the_values_of_plans_alone():
    assert BOTH.grid["num_kv_splits"] == CategoricalDistribution([1, 4, 8])


def test_the_nearest_plan_is_so_on_logarithmic_scales():
    plans = [Plan(num_kv_splits=number) for number in (256, 1, 2, 8, 64)]
    parameters = Parameters(plans)
    found = [parameters.nearest({"num_kv_splits": n}, plans)["num_kv_splits"] for n in (5, 22, 23)]
    assert found == [8, 8, 64]


LAUNCHES = st.builds(
    Plan,
    num_kv_splits=st.sampled_from([1, 2, 4, 8, 256]),
    block_n=st.sampled_from([16, 32, 64, 128]),
    num_warps=st.sampled_from([4, 8]),
)


@given(st.lists(LAUNCHES, min_size=2, max_size=12, unique=True))
def test_a_plan_is_the_nearest_to_itself_and_inside_of_the_distributions(plans):
    parameters = Parameters(plans)
    for plan in plans:
        params = parameters.of(plan)
        assert parameters.nearest(params, plans) == plan
        for name, value in params.items():
            distribution = parameters.distributions[name]
            assert distribution._contains(distribution.to_internal_repr(value))
            assert math.isfinite(distribution.to_internal_repr(value))
