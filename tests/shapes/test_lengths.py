import numpy as np
import pytest

from mla_tune.shapes.array_lengths import lengths_in


def test_rows_that_pad_a_graph_are_no_requests():
    lengths = lengths_in(np.array([4096, 1024, 1024, 0, 0]))
    assert lengths == (3, 6144, 4096)
    assert lengths.mean == 2048


@pytest.mark.parametrize(
    ("lens", "is_skewed"),
    [([1024], False), ([1500, 500], False), ([1501, 500], True), ([0, 0], False)],
)
def test_a_batch_is_skewed_beyond_one_and_a_half_times_the_mean(lens, is_skewed):
    assert lengths_in(np.array(lens)).is_skewed == is_skewed
