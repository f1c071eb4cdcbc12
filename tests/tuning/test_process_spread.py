import math

import numpy as np
import pytest

from mla_tune.table import Speedup
from mla_tune.tuning.process_spread import MEASURED_SPREAD, over_processes, spread_of


def look(log_ratio: float, error: float = 0.001) -> Speedup:
    """What a process saw, with the standard error of its own rounds."""
    ends = (log_ratio, log_ratio - 1.96 * error, log_ratio + 1.96 * error)
    median, low, high = np.exp(ends).tolist()
    return Speedup(median=median, low=low, high=high)


def half_width(speedup: Speedup) -> float:
    return math.log(speedup.high / speedup.low) / 2


def test_one_process_has_the_width_that_processes_are_known_to_differ_by():
    seen = over_processes([look(0.1, error=0.0)], MEASURED_SPREAD)
    assert seen.median == pytest.approx(math.exp(0.1))
    assert half_width(seen) == pytest.approx(2.18 * MEASURED_SPREAD, rel=0.01)


def test_rounds_that_are_noisy_widen_it():
    quiet, noisy = (over_processes([look(0.1, e)], MEASURED_SPREAD) for e in (0.0, 0.02))
    assert half_width(noisy) > 4 * half_width(quiet)


def test_more_processes_narrow_it():
    widths = [half_width(over_processes([look(0.1)] * n, MEASURED_SPREAD)) for n in (1, 2, 3, 5)]
    assert widths == sorted(widths, reverse=True)


def test_processes_far_apart_widen_their_own_entry():
    near = over_processes([look(0.1 + x) for x in (-0.002, 0, 0.002)], MEASURED_SPREAD)
    far = over_processes([look(0.1 + x) for x in (-0.05, 0, 0.05)], MEASURED_SPREAD)
    assert near.median == pytest.approx(far.median)
    assert half_width(far) > 3 * half_width(near)


def simulated(spread: float, entries: int, processes: int = 3, seed: int = 0) -> list:
    dice = np.random.default_rng(seed)
    seen = dice.normal(0.05, spread, (entries, processes)) + dice.normal(
        0, 0.002, (entries, processes)
    )
    return [[look(value, 0.002) for value in row] for row in seen]


def test_the_spread_of_a_table_is_found():
    assert spread_of(simulated(0.02, 400)) == pytest.approx(0.02, rel=0.1)


def test_the_spread_is_never_below_what_has_been_measured():
    assert spread_of(simulated(0.0, 50)) == MEASURED_SPREAD
    assert spread_of(simulated(0.05, 4)) == MEASURED_SPREAD  # too few to tell
    assert spread_of([[look(0.1)], [look(3.0)]] * 5) == MEASURED_SPREAD  # one process each


def test_a_few_entries_that_scatter_do_not_widen_the_others():
    calm, wild = simulated(0.003, 45), simulated(0.2, 5, seed=1)
    assert spread_of(calm + wild) < 0.006


@pytest.mark.parametrize("spread", [0.0033 * math.sqrt(2), 0.0045 * math.sqrt(2), 0.02])
def test_intervals_hold_the_truth_about_as_often_as_they_say(spread):
    entries = simulated(spread, 1000)
    known = spread_of(entries)
    found = [over_processes(looks, known) for looks in entries]
    held = sum(seen.low <= math.exp(0.05) <= seen.high for seen in found)
    assert 930 <= held <= 990
