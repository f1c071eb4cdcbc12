import pytest

from mla_tune.cli.figures import told_speedup, told_time
from mla_tune.table import Speedup


@pytest.mark.parametrize(
    ("us", "told"),
    [
        (0.04, "0.0 µs"),
        (41.08, "41.1 µs"),
        (999.94, "999.9 µs"),
        (999.96, "1.00 ms"),
        (1371.2, "1.37 ms"),
        (999_994, "999.99 ms"),
        (999_996, "1.00 s"),
        (2_345_678, "2.35 s"),
    ],
)
def test_a_time_has_few_digits(us, told):
    assert told_time(us) == told


def test_a_speedup_has_its_interval():
    assert told_speedup(Speedup(median=1.5, low=1.4, high=1.6)) == "1.50× (1.40–1.60)"
    assert told_speedup(None) == "–"
