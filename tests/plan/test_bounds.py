import pytest

from mla_tune.plan import bounds
from mla_tune.plan.plan import Plan
from mla_tune.registry import BACKENDS
from mla_tune.torch_mla.backend import SPLITS
from mla_tune.vllm.backends.cutlass_mla import CutlassSplits
from mla_tune.vllm.backends.flash_attn_mla import FlashAttnCap
from mla_tune.vllm.session.rules import LONGEST_DECODE_QUERY


def outside(backend: str, plan: Plan, sm_count: int | None = 132) -> dict[str, str]:
    return dict(bounds.outside(BACKENDS[backend].bounds, plan, sm_count))


@pytest.mark.parametrize(
    ("backend", "plan"),
    [
        ("TRITON_MLA", Plan(reorder_batch_threshold=1, num_kv_splits=264, prefill_backend="fa3")),
        ("FLASH_ATTN_MLA", Plan(reorder_batch_threshold=512, num_kv_splits=0)),
        ("FLASHMLA", Plan(reorder_batch_threshold=256)),
        ("CUTLASS_MLA", Plan(num_kv_splits=-1)),
        ("CUTLASS_MLA", Plan(num_kv_splits=16)),
        ("TORCH_MLA", Plan(reorder_batch_threshold=128, prefill_backend="sdpa_math")),
        ("FLASHMLA_SPARSE", Plan(reorder_batch_threshold=1024)),
    ],
)
def test_what_a_backend_does_by_default_or_can_be_told_is_inside(backend: str, plan: Plan) -> None:
    assert outside(backend, plan) == {}


@pytest.mark.parametrize(
    ("backend", "plan", "valid"),
    [
        ("TRITON_MLA", Plan(num_kv_splits=10**9), "1 to 264"),
        ("TRITON_MLA", Plan(num_kv_splits=-5), "1 to 264"),
        ("TRITON_MLA", Plan(num_kv_splits=0), "1 to 264"),
        ("TRITON_MLA", Plan(reorder_batch_threshold=2**31), "1 to 8192"),
        ("TRITON_MLA", Plan(reorder_batch_threshold=0), "1 to 8192"),
        ("FLASH_ATTN_MLA", Plan(num_kv_splits=257), "0 to 256"),
        ("CUTLASS_MLA", Plan(num_kv_splits=0), "-1 or 1 to 16"),
        ("CUTLASS_MLA", Plan(num_kv_splits=4096), "-1 or 1 to 16"),
        ("CUTLASS_MLA", Plan(reorder_batch_threshold=2), "no value: the backend has no such knob"),
        ("FLASHMLA", Plan(num_kv_splits=2), "no value: the backend has no such knob"),
        ("TORCH_MLA", Plan(num_kv_splits=0), "1 to 1024"),
    ],
)
def test_what_no_kernel_may_be_given_is_outside(backend: str, plan: Plan, valid: str) -> None:
    assert list(outside(backend, plan).values()) == [valid]


def test_what_a_search_tries_is_inside() -> None:
    tried = {
        "FLASH_ATTN_MLA": FlashAttnCap.CAPS,
        "CUTLASS_MLA": CutlassSplits.VALUES,
        "TORCH_MLA": SPLITS,
    }
    for backend, values in tried.items():
        assert all(outside(backend, Plan(num_kv_splits=value)) == {} for value in values)
    for backend in set(BACKENDS.names) - {"CUTLASS_MLA"}:
        assert outside(backend, Plan(reorder_batch_threshold=LONGEST_DECODE_QUERY)) == {}


def test_an_unknown_prefill_backend_is_outside() -> None:
    assert "fa2, fa3, fa4" in outside("FLASHMLA", Plan(prefill_backend="fa9"))["prefill_backend"]


def test_a_cpu_bounds_splits_by_no_multiprocessors() -> None:
    assert outside("TRITON_MLA", Plan(num_kv_splits=512), sm_count=None) == {}
