from pathlib import Path

import pytest

from bench_waves import compared, left_out, points
from mla_tune.measuring.recording import Recording

RECORDED = Path(__file__).parents[1] / "data" / "h200_16_heads.jsonl.gz"


@pytest.fixture(scope="module")
def recording():
    return Recording.load(RECORDED)


def tracks(recording, backend, mode):
    return [
        track
        for track in recording.tracks
        if (track.setup.backend, track.setup.mode) == (backend, mode)
    ]


def test_each_kv_length_of_a_recording_is_a_point(recording):
    found = points(tracks(recording, "TRITON_MLA", "graph"))
    assert len(found) == 36
    assert (found[0].batch, found[0].kv_len, found[0].default) == (1, 1024, 256)
    assert found[0].latency_us[1] == pytest.approx(131, rel=0.01)


@pytest.mark.parametrize("backend", ["TRITON_MLA", "FLASH_ATTN_MLA"])
def test_no_plan_of_the_model_is_slower_than_the_default(recording, backend):
    rows = {
        (row.what, row.rule): row
        for row in compared(recording, tracks(recording, backend, "eager"), 4)
    }
    by_model = rows[f"{backend}, eager, with corners", "waves"].results
    plans = [result for result in by_model if result.outcome == "plan"]
    assert len(plans) > 10
    assert max(result.loss for result in plans) <= 0
    assert sum(result.regret for result in plans) / len(plans) < 0.005
    by_nearest = rows[f"{backend}, eager, with corners", "nearest"].results
    assert any(result.loss > 0.05 for result in by_nearest if result.outcome == "plan")


def test_all_points_together_prove_the_model(recording):
    row = left_out(recording, tracks(recording, "TRITON_MLA", "eager"))
    assert row.startswith("| TRITON_MLA, eager | 36 | 264 |")
    assert row.endswith("| 0 of 22 |")
