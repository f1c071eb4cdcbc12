import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.errors import InputError
from mla_tune.shapes import MlaDimensions


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
