from types import SimpleNamespace

import pytest

from mla_tune.plan.bounds import outside
from mla_tune.plan.plan import Plan
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, MlaDimensions
from mla_tune.vllm.backend import FrozenSplits
from mla_tune.vllm.backends.cutlass_mla import BACKEND, CutlassSplits
from mla_tune.vllm.cutlass_workspace import workspace_bytes


def refused(plan: Plan) -> list[str]:
    return [valid for _, valid in outside(BACKEND.bounds, plan, 148)]


def test_more_splits_than_vllm_lets_the_kernel_have_are_refused() -> None:
    assert refused(Plan(num_kv_splits=17)) == ["-1 or 1 to 16"]
    assert refused(Plan(num_kv_splits=0)) == ["-1 or 1 to 16"]
    assert [refused(Plan(num_kv_splits=value)) for value in CutlassSplits.VALUES] == [[]] * 6


def test_it_decodes_single_tokens_alone() -> None:
    assert BACKEND.knobs == ("num_kv_splits", "prefill_backend")
    assert refused(Plan(reorder_batch_threshold=2)) == ["no value: the backend has no such knob"]
    assert BACKEND.supports("graph", BatchShape.parse("8q2s1k"), 512) is not None


def test_a_session_reserves_for_the_most_splits_before_anything_is_captured() -> None:
    sizes = []
    buffer = SimpleNamespace(shape=(1,), resize_=sizes.append)
    workspace = SimpleNamespace(get_buf=lambda: buffer)
    impl = SimpleNamespace(_num_kv_splits=-1, _workspace=workspace)
    setup = Setup("CUTLASS_MLA", MlaDimensions(16), max_num_requests=64)
    knob = BACKEND.kernel_knobs(setup, impl, None)["num_kv_splits"]
    assert knob is not None
    assert knob.default([]) == -1
    assert sizes == [workspace_bytes(64, 16)]


@pytest.mark.parametrize(("here", "carries"), [(131072, True), (262144, False)])
def test_splits_carry_over_to_the_same_length_alone(here: int, carries: bool) -> None:
    assert BACKEND.splits is not None
    assert BACKEND.splits.carry_over(FrozenSplits(8, 131072, here, 148)) is carries


def test_an_engine_takes_its_splits_as_a_variable() -> None:
    assert BACKEND.settings["num_kv_splits"].is_variable
    assert BACKEND.settings["num_kv_splits"].spelled.format(8) == "FORCE_NUM_KV_SPLITS=8"
