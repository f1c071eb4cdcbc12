import pytest

from mla_tune.plan.bounds import outside
from mla_tune.plan.plan import Plan
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, MlaDimensions
from mla_tune.vllm.backend import FrozenSplits
from mla_tune.vllm.backends.flash_attn_mla import BACKEND, FlashAttnCap


def test_a_cap_is_at_most_what_flash_attention_has() -> None:
    assert list(outside(BACKEND.bounds, Plan(num_kv_splits=257), 132)) == [
        ("num_kv_splits", "0 to 256")
    ]
    tried = [Plan(num_kv_splits=cap) for cap in FlashAttnCap.CAPS]
    assert [list(outside(BACKEND.bounds, plan, 132)) for plan in tried] == [[]] * len(tried)


@pytest.mark.parametrize(("cap", "carries"), [(8, True), (0, False)])
def test_a_graph_needs_a_cap_whatever_its_length(cap: int, carries: bool) -> None:
    assert BACKEND.splits is not None
    assert BACKEND.splits.carry_over(FrozenSplits(cap, 131072, 16384, 132)) is carries


def test_every_captured_graph_keeps_its_partial_results() -> None:
    setup = Setup("FLASH_ATTN_MLA", MlaDimensions(16), mode="graph")
    lengths = [BatchShape.parse(f"64q1s{kv_len}") for kv_len in ("1k", "4k")]
    one, two = (BACKEND.estimate_bytes(setup, lengths[:count]) for count in (1, 2))
    of_all_caps = 64 * 16 * 513 * 4 * (1 + 2 + 4 + 8 + 16 + 32 + 64 + 128)
    assert two - one > of_all_caps


def test_eager_plans_depend_on_the_capture_size() -> None:
    assert BACKEND.follows_capture_size("eager")
    assert not BACKEND.follows_capture_size("graph")


def test_an_engine_takes_a_cap_for_its_graphs_alone() -> None:
    setting = BACKEND.settings["num_kv_splits"]
    assert setting.modes == ("graph",)
    assert setting.spelled.format(8).endswith("flash_attn_max_num_splits_for_cuda_graph=8")


@pytest.mark.parametrize("spec", ["2q2_8q1s1k", "8q256s1k", "1024q1s1k", "q1s32k_7q1s512"])
def test_what_no_graph_covers_can_be_tuned_eagerly(spec: str) -> None:
    shape = BatchShape.parse(spec)
    assert BACKEND.supports("graph", shape) is not None
    assert BACKEND.supports("eager", shape) is None
