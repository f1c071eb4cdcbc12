import pytest

from search_policies import AS_A_RUN, HALF, UNRANKED, first_acting, policies, share_of_its_own


@pytest.mark.parametrize(("num_plans", "share"), [(10, 0.0), (26, 1.0)])
def test_a_sampler_draws_at_random_where_its_start_up_is_all(num_plans, share):
    assert share_of_its_own("tpe", num_plans, 5) == share


@pytest.mark.parametrize("num_plans", [10, 33])
def test_gp_draws_at_random_longer_since_it_counts_no_trial_that_was_screened_out(num_plans):
    assert share_of_its_own("gp", num_plans, 3) == 0.0


def test_a_sampler_is_compared_where_it_acts():
    plain = [AS_A_RUN, UNRANKED, HALF]
    assert list(policies(10, 0, {"tpe": 18, "gp": 22})) == plain
    assert list(policies(18, 0, {"tpe": 18, "gp": 22})) == [*plain, "half, by TPE"]
    assert policies(30, 7, {"gp": 22})["half, by GP"].budget == 15


def test_it_acts_from_the_size_on_that_all_larger_ones_agree_with():
    assert first_acting([(10, 0.0), (14, 0.6), (16, 0.4), (18, 0.5), (22, 1.0)]) == 18
    assert first_acting([(10, 0.0), (14, 0.2)]) is None
