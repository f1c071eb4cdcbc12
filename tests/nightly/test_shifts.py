import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.nightly.shifts import FEWEST_BEFORE, SPREAD, scatter, shifts


def wobbling(seed: int, count: int, sigma: float = SPREAD) -> list[float]:
    draw = random.Random(seed)
    return [5.0 + draw.gauss(0.0, sigma) for _ in range(count)]


@pytest.mark.parametrize("count", [5, 8, 30])
def test_nights_that_scatter_as_processes_do_show_no_shift(count):
    found = [seed for seed in range(200) if shifts(wobbling(seed, count))]
    assert len(found) <= 2


@pytest.mark.parametrize("seed", range(20))
def test_ten_percent_are_found_the_same_night(seed):
    values = wobbling(seed, 9)
    (shift,) = shifts([*values[:8], values[8] + math.log(1.1)])
    assert shift.first == 8
    assert shift.size == pytest.approx(math.log(1.1), abs=4 * SPREAD)


@pytest.mark.parametrize("seed", range(20))
def test_ten_percent_are_dated_weeks_later(seed):
    slower = [value + math.log(1.1) for value in wobbling(seed + 100, 20)]
    (shift,) = shifts([*wobbling(seed, 12), *slower])
    assert shift.first == 12


def test_one_percent_that_comes_and_goes_is_none():
    assert shifts([5.0 + 0.01 * (night % 2) for night in range(20)]) == []
    assert shifts([5.0] * 10 + [5.01]) == []


def test_one_odd_night_among_others_is_none():
    assert shifts([5.0] * 6 + [5.2] + [5.0] * 6) == []


def test_up_and_down_again_are_two():
    found = shifts([5.0] * 8 + [5.2] * 8 + [5.0] * 5)
    assert [(shift.first, shift.size > 0) for shift in found] == [(8, True), (16, False)]


def test_the_last_night_and_the_one_before_need_no_others():
    assert [shift.first for shift in shifts([5.0] * 6 + [5.1])] == [6]
    assert [shift.first for shift in shifts([5.0] * 6 + [5.1, 5.1])] == [6]
    assert shifts([5.0] * 6 + [5.1, 5.0]) == []


def test_a_card_that_scatters_more_needs_more():
    restless = [5.0 + 0.05 * (-1) ** night for night in range(12)]
    assert scatter(restless) > 0.05
    assert shifts([*restless, 5.1]) == []
    assert [shift.first for shift in shifts([*restless, 5.6])] == [12]


def test_a_card_that_has_two_speeds_rarely_shows_shifts():
    """A run of one speed by chance looks like a change, and is over when the other comes back."""
    seen = 0
    for seed in range(200):
        draw = random.Random(seed)
        seen += bool(shifts([5.0 + 0.03 * draw.randrange(2) for _ in range(20)]))
    assert seen <= 20


@given(st.lists(st.floats(-20, 20, allow_nan=False), max_size=60))
def test_every_shift_has_nights_before_it_and_is_beyond_their_scatter(values):
    found = shifts(values)
    assert [shift.first for shift in found] == sorted({shift.first for shift in found})
    assert all(FEWEST_BEFORE <= shift.first < len(values) for shift in found)
    assert all(abs(shift.size) > 4 * shift.scatter >= 4 * SPREAD for shift in found)
