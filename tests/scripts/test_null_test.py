"""A hundred shapes or so of what the script does with thousands."""

import pytest

from null_test import guard_row, row


@pytest.mark.parametrize("bias", [0.0033, 0.0045])
def test_of_equal_plans_none_is_published(bias):
    assert row(bias, gain=0.0, processes=3, num_shapes=40).false == 0.0


def test_most_gains_of_2_percent_are_found_and_their_intervals_hold_the_truth():
    found = row(0.0033, gain=0.02, processes=3, num_shapes=50)
    assert found.false == 0.0
    assert found.published >= 0.8
    assert found.held >= 0.9


def test_ten_guards_that_are_no_slower_refuse_few_plans():
    assert guard_row(0.0033, loss=0.0, num_shapes=40).published >= 0.9


def test_one_of_ten_guards_that_is_2_percent_slower_refuses_a_plan():
    assert guard_row(0.0033, loss=0.02, num_shapes=40).published == 0.0
