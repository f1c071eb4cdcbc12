from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mla_tune.measuring.orders import balanced_orders, order_seed

sizes = st.integers(1, 9)
seeds = st.integers(0, 2**64 - 1)


def orders(size, rounds, seed):
    return list(balanced_orders(range(size), rounds, seed))


@given(size=sizes, before=st.integers(0, 4), blocks=st.integers(1, 6), seed=seeds)
def test_in_whole_blocks_every_plan_is_in_every_place_equally_often(size, before, blocks, seed):
    rounds = orders(size, size * (before + blocks), seed)[size * before :]
    for column in zip(*rounds, strict=True):
        assert Counter(column) == dict.fromkeys(range(size), blocks)


@given(size=sizes.filter(lambda size: size > 1), blocks=st.integers(1, 3), seed=seeds)
def test_every_plan_follows_every_other_equally_often(size, blocks, seed):
    turns = blocks * (1 if size % 2 == 0 else 2)
    followed = Counter(pair for row in orders(size, size * turns, seed) for pair in pairwise(row))
    pairs = [(one, other) for one in range(size) for other in range(size) if one != other]
    assert followed == dict.fromkeys(pairs, turns)


@given(size=sizes, rounds=st.integers(0, 20), seed=seeds)
def test_every_round_has_every_plan_once_and_a_longer_race_begins_alike(size, rounds, seed):
    found = orders(size, rounds, seed)
    assert len(found) == rounds
    assert all(sorted(row) == list(range(size)) for row in found)
    assert orders(size, rounds + 3, seed)[:rounds] == found


def test_a_shape_has_the_same_orders_in_every_process_and_no_other_shape_has_them():
    assert order_seed("32q1s4k") == 7799726351041734136
    keys = [f"{count}q1s{kv_len}k" for count in range(1, 65) for kv_len in (1, 4, 16)]
    races = {tuple(orders(4, 16, order_seed(key))) for key in keys}
    assert len(races) == len(keys)


def test_the_steps_of_a_contest_have_different_orders():
    assert (
        len({tuple(orders(4, 8, order_seed("8q1s1k", first))) for first in range(0, 96, 8)}) == 12
    )


def test_no_plan_leads_more_often_than_another_over_many_shapes():
    """At 16 rounds of two plans: each leads 8 times, whatever the shape."""
    for kv_len in range(50):
        led = Counter(row[0] for row in orders(2, 16, order_seed(f"1q1s{kv_len}k")))
        assert led == {0: 8, 1: 8}
