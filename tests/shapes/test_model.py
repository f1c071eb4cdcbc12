import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.errors import InputError
from mla_tune.shapes import PRESETS, MlaDimensions


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("deepseek-v2-lite", 16),
        ("deepseek-v2", 128),
        ("deepseek-v3", 128),
        ("deepseek-r1", 128),
        ("kimi-k2", 64),
    ],
)
def test_presets_are_the_published_dimensions(name, heads):
    assert PRESETS[name] == MlaDimensions(heads, 512, 128, 64, 128)


def test_derived_dimensions():
    model = MlaDimensions(16)
    assert (model.latent_dim, model.qk_head_dim) == (576, 192)
    assert model.softmax_scale == pytest.approx(192**-0.5)


@given(st.integers(1, 256), st.integers(-2, 300))
def test_a_gpu_holds_its_share_of_the_heads_or_the_size_is_refused(heads, size):
    model = MlaDimensions(heads)
    if size >= 1 and heads % size == 0:
        assert model.sharded(size).num_q_heads * size == heads
    else:
        with pytest.raises(InputError) as caught:
            model.sharded(size)
        valid = [int(part) for part in caught.value.valid.split(", ")]
        assert all(heads % part == 0 for part in valid)
