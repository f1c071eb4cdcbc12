import pytest

from mla_tune.nightly.trend import trends
from mla_tune.plan.plan import Plan
from readings import nights, reading

STEADY = [100.0, 100.3, 99.8, 100.1, 99.9]


def test_a_plan_that_became_slower_is_dated_with_what_changed():
    after = [
        reading(night, 110.0, software={"vllm": "0.33.1", "driver": "590"}) for night in (5, 6)
    ]
    (trend,) = trends([*nights(STEADY), *after])
    change = trend.regression
    assert change.factor == pytest.approx(1.1, rel=0.01)
    assert (change.last_before.day, change.first.day) == ("2026-11-05", "2026-11-06")
    assert change.differences == ("driver none → 590", "vllm 0.33.0 → 0.33.1")
    assert not change.is_of_the_card
    assert trend.usual_us == 110.0


def test_a_card_that_became_slower_is_told_from_a_plan():
    (trend,) = trends([*nights(STEADY), reading(5, 110.0, default_us=220.0)])
    assert trend.regression.is_of_the_card
    assert trend.regression.default_factor == pytest.approx(1.1, rel=0.01)


def test_what_became_faster_is_a_change_and_no_regression():
    (trend,) = trends([*nights(STEADY), reading(5, 80.0, plan=Plan(num_kv_splits=8))])
    assert trend.regression is None
    assert trend.changes[0].differences == ("plan num_kv_splits=2 → num_kv_splits=8",)


def test_a_regression_that_was_mended_is_no_longer_one():
    (trend,) = trends(nights([*STEADY, *[110.0] * 5, *STEADY]))
    assert trend.regression is None
    assert [change.is_regression for change in trend.changes] == [True, False]


def test_a_retune_that_mends_a_regression_is_told_beside_it():
    slow = [reading(5, 110.0), reading(5, 110.2)]
    after = [
        reading(5, 101.0, plan=Plan(num_kv_splits=8)),
        reading(6, 101.1, plan=Plan(num_kv_splits=8)),
    ]
    (trend,) = trends([*nights(STEADY), *slow, *after])
    assert trend.regression is None
    assert [round(change.factor, 2) for change in trend.changes] == [1.1, 0.92]
    assert trend.changes[1].differences == ("plan num_kv_splits=2 → num_kv_splits=8",)


def test_another_plan_of_the_same_latency_is_no_change():
    (trend,) = trends([*nights(STEADY), reading(5, 100.2, plan=Plan(num_kv_splits=8))])
    assert trend.changes == ()


def test_cards_are_not_compared_with_one_another():
    slow = nights([latency * 1.05 for latency in STEADY], card="ffffffff")
    mixed = sorted([*nights(STEADY), *slow], key=lambda each: each.at)
    found = trends(mixed)
    assert {trend.card for trend in found} == {"0a1b2c3d", "ffffffff"}
    assert all(trend.changes == () for trend in found)


def test_a_rebuilt_kernel_is_named():
    before = nights(STEADY, kernels={"_flashmla_C.abi3.so": "aa"})
    (trend,) = trends([*before, reading(5, 120.0, kernels={"_flashmla_C.abi3.so": "bb"})])
    assert trend.regression.differences == ("_flashmla_C.abi3.so changed",)
