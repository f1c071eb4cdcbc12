from pathlib import Path

import pytest
from search_cases import recording, track

import search_tunes
from mla_tune.measuring.recording import Recording
from search_policies import AS_A_RUN, HALF, UNRANKED
from search_tunes import NOTHING, SEEN_BEST, label, tunes

RECORDED = Path(__file__).parents[1] / "data" / "h200_16_heads.jsonl.gz"


@pytest.fixture
def played_back(monkeypatch):
    """Tunes what it is given in place of a file."""

    def results(*tracks):
        made_up = recording(*tracks)
        monkeypatch.setattr(search_tunes.Recording, "load", lambda _: made_up)
        found = tunes(Path("made_up"), 0)
        return {name: [r for r in found if r.policy == name] for name in {r.policy for r in found}}

    return results


def test_every_policy_is_judged(played_back):
    found = played_back(track(10.0, 8.0, 12.0, 14.0, 16.0), track(10.0, 11.0, spec="8q1s4k"))
    assert set(found) == {AS_A_RUN, UNRANKED, HALF, NOTHING, SEEN_BEST}
    first, second = found[AS_A_RUN]
    assert (first.regret, first.is_plan, second.regret, second.is_plan) == (0.0, True, 0.0, False)
    assert first.loss == pytest.approx(-0.2)
    assert found[NOTHING][0].regret == pytest.approx(0.25)
    assert 0 < first.screened_share < first.spent_share


def test_held_out_rounds_show_what_the_played_ones_hide(played_back):
    found = track(10.0, 9.0)
    found.rounds[found.plans[1]] = [(9.0,)] * 4 + [(11.0,)] * 4
    (result,) = played_back(found)[AS_A_RUN]
    assert result.is_plan
    assert (result.loss, result.regret) == (pytest.approx(0.1), pytest.approx(0.1))
    assert result.moved == pytest.approx(0.111, abs=1e-3)


def test_a_sampler_plays_in_a_space_that_is_large_enough(played_back):
    found = played_back(track(*(10.0 + abs(7 - number) for number in range(22))))
    assert len(found["half, by TPE"]) == 1


def test_a_recording_of_several_tables_is_listed_by_table():
    h200 = Recording.load(RECORDED)
    assert label(h200, h200.tracks[0]).startswith("h200_16_heads: ")
    assert label(recording(track(1.0)), track(1.0)) == "made_up"
