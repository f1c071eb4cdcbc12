"""Figures of docs/h100.md."""

from pathlib import Path

import pytest

from bench_waves import cutter
from judge_extends import extends, left_out
from mla_tune.measuring.recording import Recording

DATA = Path(__file__).parents[1] / "data" / "h100"


def plans_of(*parts):
    """How many extends there are, and what becomes of those that get a plan."""
    loaded = [Recording.load(DATA / f"extends_flash_attn_mla_{part}.jsonl.gz") for part in parts]
    setup = loaded[0].tracks[0].setup
    points = [point for part in loaded for point in extends(part.tracks)]
    results = left_out(points, cutter(loaded[0].environment, setup.backend, setup.model))
    return len(points), [result for result in results if result.outcome == "plan"]


def test_no_answer_is_slower_than_the_default_and_the_large_gains_are_found():
    count, plans = plans_of("grid", "random")
    assert count == 76
    assert max(result.loss for result in plans) < 0
    assert max(result.regret for result in plans) < 0.01
    # Caps for queries of 33 and 187 tokens, and the prefill path for 505.
    gains = sorted(1 / (1 + result.loss) for result in plans)
    assert [round(gain, 1) for gain in gains[-3:]] == [1.1, 1.3, 1.6]


@pytest.mark.parametrize("parts", [("grid", "fresh"), ("grid", "random", "fresh")])
def test_fresh_extends_get_no_plan_that_is_slower_than_the_default(parts):
    _, plans = plans_of(*parts)
    assert len(plans) >= 5
    assert max(result.loss for result in plans) < 0
