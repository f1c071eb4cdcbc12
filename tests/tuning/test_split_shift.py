from mla_tune.plan.plan import Plan
from mla_tune.tuning.split_shift import Near

COUNTS = (1, 2, 4, 8, 16, 32, 64)
FLAT, WIDE = Plan(block_n=64), Plan(block_n=128)
TALL, TALLER = Plan(block_n=32, block_h=64), Plan(block_n=64, block_h=64)
LAUNCHES = (FLAT, WIDE, TALLER, TALL)
PLANS = tuple(
    Plan(num_kv_splits=splits, **launch) for launch in (Plan(), *LAUNCHES) for splits in COUNTS
)


def at(splits, heads=128):
    return Near(PLANS, Plan(num_kv_splits=splits), heads)


def test_the_nearest_count_is_taken():
    assert at(8).plan(FLAT, 1.0) == FLAT.having(num_kv_splits=8)
    assert at(8).plan(FLAT, 1.3) == FLAT.having(num_kv_splits=8)
    assert at(8).plan(FLAT, 0.625) == FLAT.having(num_kv_splits=4)
    assert at(1).plan(FLAT, 0.5) == FLAT.having(num_kv_splits=1)
    assert at(1).plan(Plan(block_n=16), 1.0) is None


def test_one_pioneer_for_other_thread_blocks():
    """With 64 heads a block instead of 16, up to four times the splits."""
    expected = [TALL.having(num_kv_splits=count) for count in (4, 8, 16, 32)]
    assert at(8).pioneers(LAUNCHES) == expected
    # 16 heads are one block either way.
    assert at(8, heads=16).pioneers(LAUNCHES) == []


def test_launches_of_the_same_blocks_share_their_best_count():
    ratios = {TALL.having(num_kv_splits=count): 1.0 / count for count in (4, 8, 16)}
    shifts = at(8).shifts(LAUNCHES, ratios)
    assert shifts == {FLAT: 1.0, WIDE: 1.0, TALL: 2.0, TALLER: 2.0}


def test_where_the_pioneer_failed_the_own_count_stands():
    assert set(at(8).shifts(LAUNCHES, {}).values()) == {1.0}


def test_a_kernel_without_splits_has_one_plan_a_launch():
    near = Near((Plan(), FLAT, TALL), Plan(), 128)
    assert near.plan(FLAT, 1.0) == FLAT
    assert near.plan(TALL, 4.0) == TALL
