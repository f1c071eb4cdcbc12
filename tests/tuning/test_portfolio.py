from hypothesis import given
from hypothesis import strategies as st

from mla_tune.plan.plan import Plan
from mla_tune.tuning.portfolio import MOST_LAUNCHES, portfolio

A, B, C, D, E = (Plan(block_n=16 << power) for power in range(5))


def test_the_one_that_gains_most_comes_first_then_what_gains_beside_it():
    first = {A: 0.8, B: 0.81, C: 0.95}
    second = {A: 0.9, B: 0.9, C: 0.7}
    assert portfolio([first, second]) == (C, A)


def test_what_adds_less_than_half_a_percent_is_not_taken():
    assert portfolio([{A: 0.8, B: 0.7999}]) == (B,)
    assert portfolio([{A: 0.998, B: 1.2}]) == ()
    assert portfolio([]) == ()


def test_one_that_failed_somewhere_leaves_the_own_launch_there():
    assert portfolio([{A: 0.5}, {B: 0.9}]) == (A, B)


launches = st.sampled_from([A, B, C, D, E])
ratios = st.dictionaries(launches, st.floats(0.2, 3.0), min_size=1)


@given(st.lists(ratios, min_size=1, max_size=4))
def test_few_of_those_that_were_seen_each_once(found):
    chosen = portfolio(found)
    assert len(set(chosen)) == len(chosen) <= MOST_LAUNCHES
    assert set(chosen) <= {launch for each in found for launch in each}
    if chosen:
        assert min(each.get(chosen[0], 1.0) for each in found) < 1.0
