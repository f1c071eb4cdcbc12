from hypothesis import given
from hypothesis import strategies as st

from mla_tune.serving.order import spread_first
from mla_tune.vllm.captures import default_capture_sizes


@given(st.lists(st.integers(1, 2048)), st.integers(1, 2048))
def test_every_size_has_its_turn(sizes: list[int], most: int) -> None:
    order = spread_first(sizes, most)
    assert sorted(order) == sorted({min(size, most) for size in sizes})


def test_wherever_it_ends_all_loads_are_covered() -> None:
    sizes = default_capture_sizes("0.33.0", "9.0", max_num_seqs=1024)
    assert spread_first(sizes, 256)[:2] == [1, 256]
    order = spread_first(sizes, 1024)
    assert order[:2] == [1, 512]
    for octave in range(3, 10):
        in_octave = [size for size in order[:16] if 2**octave / 2 < size <= 2**octave]
        assert in_octave, f"nothing up to {2**octave} among the first 16"
