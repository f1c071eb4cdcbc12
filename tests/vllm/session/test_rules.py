# ruff: noqa: ARG002
"""How a batch is divided, and which plans are left."""

from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.errors import UnavailableError
from mla_tune.plan.plan import Plan
from mla_tune.registry import get_backend
from mla_tune.shapes import BatchShape, RequestGroup
from mla_tune.vllm.session.parts import refuse_out_of_bounds
from mla_tune.vllm.session.rules import SessionRules, route


class Splits:
    """A split knob that admits no more than 1000 decode tokens times splits."""

    def default(self, shapes):
        return max(shape.max_kv_len for shape in shapes) // 512

    def values(self, shapes):
        return (1, 2, 4)

    def expected(self, value, decode_tokens):
        return value

    def admits(self, value, decode_tokens):
        return value * decode_tokens <= 1000

    def set(self, value):
        return nullcontext()

    def stamp(self, metadata, value):
        pass

    def observe(self):
        return nullcontext([])


def rules(**changes):
    facts = {
        "mode": "eager",
        "threshold": 128,
        "has_threshold": True,
        "uniform": False,
        "prefill_backends": ("fa3", "fa2"),
        "kernel_knobs": {},
    }
    return SessionRules(**(facts | changes))


LAUNCHES = (
    Plan(block_n=32, num_warps=4),
    Plan(block_n=64, num_warps=8),
    Plan(block_n=16, num_warps=4),
)


def shapes_of(*specs):
    return [BatchShape.parse(spec) for spec in specs]


@pytest.mark.parametrize(
    ("spec", "threshold", "uniform", "decode_tokens"),
    [
        ("8q1s1k", 1, True, 8),
        ("8q2s1k", 1, True, 0),
        ("8q2s1k", 2, True, 16),
        ("4q2s1k_8q1s1k", 2, True, 8),
        ("4q2s1k_8q1s1k", 2, False, 16),
        ("2q512_4q2s1k_8q1s1k", 2, False, 16),
        ("2q512_4q2s1k", 1, False, 0),
    ],
)
def test_route(spec, threshold, uniform, decode_tokens):
    taken = route(BatchShape.parse(spec), threshold, uniform=uniform)
    assert taken.num_decode_tokens == decode_tokens


groups = st.lists(
    st.builds(
        lambda query, context, count: RequestGroup(query, query + context, count),
        st.integers(1, 20),
        st.integers(0, 50),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=5,
)


@given(groups=groups, threshold=st.integers(1, 25), uniform=st.booleans())
def test_route_divides_all_tokens(groups, threshold, uniform):
    shape = BatchShape.of(groups)
    taken = route(shape, threshold, uniform=uniform)
    assert taken.num_decode_tokens + taken.num_prefill_tokens == shape.num_query_tokens
    assert 0 <= taken.num_decodes <= shape.num_requests
    assert (taken.longest_prefill > 0) == (taken.num_prefill_tokens > 0)


@pytest.mark.vllm
@given(groups=groups, threshold=st.integers(1, 25), uniform=st.booleans())
def test_route_is_the_one_vllm_takes(groups, threshold, uniform):
    pytest.importorskip("vllm")
    torch = pytest.importorskip("torch")
    from types import SimpleNamespace

    try:
        from vllm.v1.attention.backends.utils import split_decodes_and_prefills
    except ImportError as error:
        pytest.skip(str(error))
    shape = BatchShape.of(groups)
    starts = [0]
    for query_len, _ in shape.requests():
        starts.append(starts[-1] + query_len)
    common = SimpleNamespace(
        max_query_len=shape.max_query_len,
        num_reqs=shape.num_requests,
        num_actual_tokens=shape.num_query_tokens,
        query_start_loc_cpu=torch.tensor(starts),
    )
    expected = split_decodes_and_prefills(
        common, decode_threshold=threshold, require_uniform=uniform
    )
    taken = route(shape, threshold, uniform=uniform)
    assert expected[0] == taken.num_decodes
    assert expected[2] == taken.num_decode_tokens


def test_decode_has_no_threshold_and_no_prefill_backend():
    space = rules().plan_space(shapes_of("8q1s1k"))
    assert space.plans == (Plan(),)


def test_extend_may_take_either_path():
    space = rules().plan_space(shapes_of("8q64s1k"))
    assert space.plans == (
        Plan(reorder_batch_threshold=128),
        Plan(reorder_batch_threshold=1, prefill_backend="fa3"),
        Plan(reorder_batch_threshold=1, prefill_backend="fa2"),
    )


def test_very_long_queries_are_not_tried_on_the_decode_path():
    space = rules().plan_space(shapes_of("q4k"))
    assert space.plans == (Plan(prefill_backend="fa3"), Plan(prefill_backend="fa2"))


def test_graph_mode_is_decode_whatever_its_query_length():
    found = rules(mode="graph", threshold=1, uniform=True, kernel_knobs={"num_kv_splits": Splits()})
    shapes = shapes_of("8q2s1k", "8q2s1024")
    domain = found.domain(shapes)
    assert domain.default.get("reorder_batch_threshold") == 2
    assert all(plan.get("prefill_backend") is None for plan in found.plan_space(shapes).plans)


def test_plans_beyond_the_workspace_are_left_out_but_never_the_default():
    found = rules(kernel_knobs={"num_kv_splits": Splits()}, has_threshold=False, threshold=1)
    space = found.plan_space(shapes_of("400q1s2k"))
    assert [plan.get("num_kv_splits") for plan in space.plans] == [4, 1, 2]
    space = found.plan_space(shapes_of("600q1s2k"))
    assert [plan.get("num_kv_splits") for plan in space.plans] == [4, 1]


def test_eager_shapes_of_other_defaults_share_no_space():
    with pytest.raises(ValueError, match="share no plan space"):
        rules(kernel_knobs={"num_kv_splits": Splits()}).plan_space(shapes_of("8q1s1k", "8q1s4k"))


class TestSparse:
    def test_beyond_the_topk_everything_takes_one_kernel(self):
        found = rules(topk=2048)
        assert found.plan_space(shapes_of("q64s8k_8q1s8k")).plans == (Plan(),)

    def test_within_the_topk_prefills_are_dense(self):
        found = rules(topk=2048)
        assert len(found.plan_space(shapes_of("8q64s1k")).plans) == 3

    def test_without_a_dense_path_there_is_no_choice(self):
        found = rules(topk=2048, sparse_prefill="mqa", prefill_backends=())
        assert found.plan_space(shapes_of("8q64s1k")).plans == (Plan(),)

    def test_kernels_that_differ_keep_the_threshold(self):
        found = rules(topk=2048, sparse_split=True)
        assert found.plan_space(shapes_of("8q64s8k")).plans == (
            Plan(reorder_batch_threshold=128),
            Plan(reorder_batch_threshold=1),
        )


def test_what_no_table_may_say_is_refused_before_it_is_measured():
    refuse_out_of_bounds("FLASHMLA", get_backend("FLASHMLA").bounds, rules())
    refuse_out_of_bounds(
        "CUTLASS_MLA",
        get_backend("CUTLASS_MLA").bounds,
        rules(has_threshold=False, prefill_backends=()),
    )
    with pytest.raises(UnavailableError, match="has prefill_backend 'quantum'"):
        refuse_out_of_bounds(
            "FLASHMLA", get_backend("FLASHMLA").bounds, rules(prefill_backends=("fa3", "quantum"))
        )
    with pytest.raises(UnavailableError, match="has reorder_batch_threshold 100000"):
        refuse_out_of_bounds("FLASHMLA", get_backend("FLASHMLA").bounds, rules(threshold=100_000))


def test_each_launch_is_tried_with_each_plan_that_decodes():
    shapes = shapes_of("8q1s1k")
    facts = {"kernel_knobs": {"num_kv_splits": Splits()}, "prefill_backends": ()}
    own = rules(**facts).plan_space(shapes)
    space = rules(**facts, launches=LAUNCHES).plan_space(shapes)
    assert space.plans[: len(own.plans)] == own.plans
    others = space.plans[len(own.plans) :]
    assert set(others) == {plan.having(**launch) for plan in own.plans for launch in LAUNCHES[1:]}
    assert space.default_assignment == own.default_assignment.having(**LAUNCHES[0])
    assert space.assignments == 3 * own.assignments


def test_without_decodes_there_is_no_launch_to_choose():
    shapes = shapes_of("q64s1k")
    plans = rules(launches=LAUNCHES).plan_space(shapes).plans
    prefilling = [plan for plan in plans if not rules().route(shapes[0], plan).num_decode_tokens]
    assert prefilling
    assert not any("block_n" in plan for plan in prefilling)
    assert any("block_n" in plan for plan in plans)


def test_a_launch_s_plans_keep_to_what_the_kernel_can_address():
    facts = {"kernel_knobs": {"num_kv_splits": Splits()}, "prefill_backends": ()}
    plans = rules(**facts, launches=LAUNCHES).plan_space(shapes_of("400q1s1k")).plans
    assert {plan["num_kv_splits"] for plan in plans if "block_n" in plan} == {1, 2}
