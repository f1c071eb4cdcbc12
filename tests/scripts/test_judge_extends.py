"""Figures of docs/h100.md."""

from pathlib import Path

from bench_waves import cutter
from judge_extends import extends, left_out
from mla_tune.measuring.recording import Recording

DATA = Path(__file__).parents[1] / "data" / "h100"


def test_no_answer_is_slower_than_the_default_and_the_large_gains_are_found():
    parts = [
        Recording.load(DATA / f"extends_flash_attn_mla_{part}.jsonl.gz")
        for part in ("grid", "random")
    ]
    setup = parts[0].tracks[0].setup
    points = [point for part in parts for point in extends(part.tracks)]
    assert len(points) == 76
    results = left_out(points, cutter(parts[0].environment, setup.backend, setup.model))
    plans = [result for result in results if result.outcome == "plan"]
    assert max(result.loss for result in plans) < 0
    assert max(result.regret for result in plans) < 0.01
    # Caps for queries of 33 and 187 tokens, and the prefill path for 505.
    gains = sorted(1 / (1 + result.loss) for result in plans)
    assert [round(gain, 1) for gain in gains[-3:]] == [1.1, 1.3, 1.6]
