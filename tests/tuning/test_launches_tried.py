import pytest

from mla_tune.plan.launch import launch_of
from mla_tune.plan.plan import Plan
from mla_tune.tuning.launches import (
    ALL_LAUNCHES,
    OWN_LAUNCH,
    Launches,
    has_own_launch,
    splits_of,
)

WIDE, TALL = Plan(block_n=64), Plan(block_h=64)
PLANS = tuple(
    Plan(num_kv_splits=splits, **launch)
    for launch in ({}, WIDE, TALL)
    for splits in (256, 1, 2, 4, 8, 16, 32, 64)
)


def test_all_or_the_own_one():
    assert ALL_LAUNCHES.among(PLANS, 8) == PLANS
    assert OWN_LAUNCH.among(PLANS, 8) == PLANS[:8]
    assert Launches((WIDE,)).among(PLANS, 8) == PLANS[:16]


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        (1, [16, 32, 64, 256]),  # 64 splits make as many thread blocks as 8 of 8 rows
        (8, [2, 4, 8, 16, 32]),
        (16, [1, 2, 4, 8, 16]),
        (64, [1, 2, 4]),
        (4096, [1, 2, 4]),
    ],
)
def test_chosen_launches_are_tried_where_the_best_count_is_to_be_expected(rows, counts):
    found = Launches((WIDE,), {8: 8, 512: 1}).among(PLANS, rows)
    assert found[:8] == PLANS[:8]
    assert sorted(splits_of(plan) for plan in found[8:]) == counts
    assert {launch_of(plan) for plan in found[8:]} == {WIDE}


def test_a_default_may_name_its_own_constants():
    default = Plan(num_kv_splits=256, block_n=32)
    assert has_own_launch(default, default)
    assert has_own_launch(Plan(num_kv_splits=8), default)
    assert not has_own_launch(Plan(num_kv_splits=8, block_n=64), default)
    plans = (default, Plan(num_kv_splits=8, block_n=32), Plan(num_kv_splits=8, block_n=64))
    assert OWN_LAUNCH.among(plans, 8) == plans[:2]


@pytest.mark.parametrize(("plan", "count"), [(Plan(), 1), (Plan(num_kv_splits=-1), 1)])
def test_a_kernel_without_a_count_has_one_part(plan, count):
    assert splits_of(plan) == count
