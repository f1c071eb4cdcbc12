from search_cases import recording, track

from search_alike import alike


def test_all_plans_have_the_rounds_of_the_default():
    (found,) = alike(recording(track(10.0, 5.0, 7.0, noise=0.1)), seed=0).tracks
    default, *others = (list(rounds) for rounds in found.rounds.values())
    assert default != others[0] != others[1]
    assert all(sorted(rounds) == sorted(default) for rounds in others)
