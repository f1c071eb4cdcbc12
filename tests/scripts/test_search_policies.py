from search_policies import ACTS_FROM, AS_A_RUN, HALF, START_UP, UNRANKED, policies


def test_a_sampler_is_compared_where_it_acts():
    plain = [AS_A_RUN, UNRANKED, HALF]
    assert list(policies(ACTS_FROM - 1, 0)) == plain
    assert list(policies(ACTS_FROM, 0)) == [*plain, "half, by TPE", "half, by GP"]
    assert policies(ACTS_FROM, 0)[HALF].budget == START_UP + 1
    assert policies(30, 7)["half, by GP"].budget == 15
