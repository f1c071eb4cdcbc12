import pytest

from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, MlaDimensions
from mla_tune.vllm.backends.flashmla_sparse import BACKEND


def setup(dtype: str = "auto", heads: int = 16) -> Setup:
    return Setup("FLASHMLA_SPARSE", MlaDimensions(heads), kv_cache_dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "heads", "apart"),
    [("fp8_ds_mla", 32, True), ("fp8_ds_mla", 16, False), ("auto", 128, False)],
)
def test_an_fp8_cache_and_many_heads_take_prefills_apart(
    dtype: str, heads: int, apart: bool
) -> None:
    assert BACKEND.parts_prefills(setup(dtype, heads)) is apart


def test_the_packed_cache_is_smaller() -> None:
    shape = BatchShape.parse("128q1s32k")
    packed, plain = setup("fp8_ds_mla"), setup()
    assert BACKEND.estimate_bytes(packed, [shape]) < BACKEND.estimate_bytes(plain, [shape])
