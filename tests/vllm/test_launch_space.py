"""Which launches are tried, by what a thread block can have of shared memory."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.plan.plan import Plan
from mla_tune.shapes import MlaDimensions
from mla_tune.vllm.launch_space import LaunchSpace
from mla_tune.vllm.triton_launch import VLLM_LAUNCH

HOPPER_BYTES = 232_448
CONSUMER_BYTES = 101_376  # SM86, SM89 and SM120

# Compute capability, cache dtype, constants, and the bytes that Triton compiled them to.
COMPILED = json.loads((Path(__file__).parents[1] / "data/launch_shared_bytes.json").read_text())


def launch(block_n: int, block_h: int, num_warps: int, num_stages: int) -> Plan:
    return Plan(block_n=block_n, block_h=block_h, num_warps=num_warps, num_stages=num_stages)


def space(heads: int, major: int = 9, cache_bytes: int = 2) -> LaunchSpace:
    return LaunchSpace(MlaDimensions(heads), cache_bytes, major)


def tried(heads: int, most_bytes: int, **facts: int) -> tuple[Plan, ...]:
    return space(heads, **facts).launches(most_bytes, VLLM_LAUNCH)


@pytest.mark.parametrize("row", COMPILED, ids=str)
def test_no_launch_needs_more_than_is_said(row: list) -> None:
    capability, cache_bytes, *constants, compiled = row
    said = space(128, capability // 10, cache_bytes).shared_bytes(launch(*constants))
    assert compiled <= said <= compiled + 70_000


def test_two_stages_of_an_fp8_cache_are_never_tried_on_small_gpus() -> None:
    """102,400 bytes of vLLM's own launch, where 101,376 are there."""
    needed = space(128, 8, 1).shared_bytes(VLLM_LAUNCH)
    assert CONSUMER_BYTES < 102_400 <= needed
    for major in (8, 12):
        assert all(
            one["num_stages"] == 1 or one["block_n"] == 16
            for one in tried(128, CONSUMER_BYTES, major=major, cache_bytes=1)[1:]
        )


@pytest.mark.parametrize(
    "won", [(64, 16, 8, 1), (64, 64, 8, 1), (32, 64, 8, 2), (128, 16, 8, 1), (64, 16, 4, 2)]
)
def test_what_won_on_an_h100_is_tried(won: tuple[int, int, int, int]) -> None:
    assert launch(*won) in tried(128, HOPPER_BYTES)


def test_up_to_16_heads_have_no_blocks_of_heads_to_choose() -> None:
    for heads in (2, 8, 12, 16):
        assert {knob for one in tried(heads, HOPPER_BYTES) for knob in one} == {
            *("block_n", "num_warps", "num_stages")
        }
    assert Plan(block_n=64, num_warps=8, num_stages=1) in tried(16, HOPPER_BYTES)


@pytest.mark.parametrize(("heads", "largest"), [(17, 32), (20, 32), (32, 32), (33, 64), (128, 64)])
def test_no_block_has_more_heads_than_the_first_that_holds_all(heads: int, largest: int) -> None:
    assert max(one["block_h"] for one in tried(heads, 10**6)) == largest


@given(st.integers(1, 128), st.sampled_from([8, 9, 10, 12]), st.sampled_from([1, 2]), st.data())
def test_more_shared_memory_only_adds_launches(
    heads: int, major: int, cache_bytes: int, data: st.DataObject
) -> None:
    small = data.draw(st.integers(0, 300_000))
    large = data.draw(st.integers(small, 300_000))
    few, many = (
        tried(heads, most, major=major, cache_bytes=cache_bytes) for most in (small, large)
    )
    assert set(few) <= set(many)
    assert len(set(many)) == len(many)
    assert many[0] == (VLLM_LAUNCH if heads > 16 else VLLM_LAUNCH.without("block_h"))
    assert Plan() not in many


def test_a_kernel_that_loads_values_too_needs_more() -> None:
    twice = LaunchSpace(MlaDimensions(128), 2, 9, loads_values=True)
    assert twice.shared_bytes(VLLM_LAUNCH) > space(128).shared_bytes(VLLM_LAUNCH)
    assert set(twice.launches(HOPPER_BYTES, VLLM_LAUNCH)) < set(tried(128, HOPPER_BYTES))
