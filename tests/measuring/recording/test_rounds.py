import math

import pytest

from mla_tune.measuring.recording import Rounds


def test_rounds_are_a_sequence_of_tuples() -> None:
    rounds = Rounds(2)
    rounds.extend([[1, 2.5], (3, 4)])
    rounds.extend([[5, 6]])
    assert list(rounds) == [(1.0, 2.5), (3.0, 4.0), (5.0, 6.0)]
    assert rounds[-1] == (5.0, 6.0)
    assert rounds[1:] == [(3.0, 4.0), (5.0, 6.0)]
    assert len(rounds) == 3
    assert rounds.num_samples == 6
    with pytest.raises(IndexError):
        rounds[3]


@pytest.mark.parametrize("latency", [0, -1, float("nan"), float("inf"), 10**400, True, "1", None])
def test_what_is_no_latency_is_refused(latency: object) -> None:
    with pytest.raises(ValueError, match="a latency of"):
        Rounds(1).extend([[latency]])


def test_a_case_that_a_round_left_out_is_no_number() -> None:
    rounds = Rounds(2)
    rounds.extend([[None, 2.5]])
    (cases,) = rounds
    assert math.isnan(cases[0])
    assert cases[1] == 2.5


@pytest.mark.parametrize("cases", [[], [1.0], [1.0, 2.0, 3.0], "12", {}, 7])
def test_a_round_has_one_latency_a_case(cases: object) -> None:
    with pytest.raises(ValueError, match="a round of"):
        Rounds(2).extend([cases])
