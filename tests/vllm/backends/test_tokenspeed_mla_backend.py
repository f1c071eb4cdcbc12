from types import SimpleNamespace

import pytest

from mla_tune.plan.bounds import outside
from mla_tune.plan.plan import Plan
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, MlaDimensions
from mla_tune.vllm.backends.tokenspeed_mla import BACKEND, MOST_BYTES, SplitFloor, partial_bytes

BATCH = [BatchShape.parse("8q1s4k")]


def refused(plan: Plan) -> list[str]:
    return [valid for _, valid in outside(BACKEND.bounds, plan, 148)]


@pytest.fixture
def impl() -> SimpleNamespace:
    return SimpleNamespace(_min_split_kv=1, _max_decode_tokens=0)


@pytest.fixture
def knob(impl: SimpleNamespace) -> SplitFloor:
    return SplitFloor(impl, num_heads=16, kv_lora_rank=512)


def test_its_knobs_and_their_bounds() -> None:
    assert BACKEND.knobs == ("reorder_batch_threshold", "prefill_backend", "min_split_kv")
    assert refused(Plan(min_split_kv=257)) == ["1 to 256"]
    assert refused(Plan(min_split_kv=0)) == ["1 to 256"]
    assert [refused(Plan(min_split_kv=floor)) for floor in SplitFloor.FLOORS] == [[]] * 9
    assert refused(Plan(num_kv_splits=2)) == ["no value: the backend has no such knob"]


def test_no_floor_leaves_parts_empty(knob: SplitFloor) -> None:
    assert knob.values(BATCH) == (1, 2, 4, 8, 16, 32)  # 4096 tokens are 32 tiles
    assert knob.values([BatchShape.parse("q1s64")]) == (1,)
    assert knob.default(BATCH) == 1


def test_the_kernel_refuses_workspaces_of_two_gib(knob: SplitFloor) -> None:
    rows = 4096
    assert partial_bytes(rows, 1, num_heads=16, kv_lora_rank=512) == rows * 128 * 513 * 4
    assert knob.admits(1, rows)
    assert not knob.admits(2, rows)
    assert knob.admits(256, 8)


def test_a_floor_comes_with_the_rows_that_vllm_sizes_its_workspace_by(
    impl: SimpleNamespace, knob: SplitFloor
) -> None:
    with knob.set(8):
        assert impl._min_split_kv == 8
        assert knob.bytes(impl._max_decode_tokens, 8) <= MOST_BYTES
        assert knob.bytes(impl._max_decode_tokens + 1, 8) > MOST_BYTES
    assert (impl._min_split_kv, impl._max_decode_tokens) == (1, 0)


def test_a_release_without_it_has_no_such_knob() -> None:
    setup = Setup("TOKENSPEED_MLA", MlaDimensions(16))
    assert not BACKEND.kernel_knobs(setup, SimpleNamespace(), None)


def test_an_engine_takes_it_as_a_flag() -> None:
    spelled = BACKEND.settings["min_split_kv"].spelled.format(8)
    assert spelled == "--attention-config.tokenspeed_mla_min_split_kv=8"
