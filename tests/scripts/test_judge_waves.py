"""Figures of docs/h100.md: chosen by one process's samples, judged by another's."""

from pathlib import Path

import numpy as np
import pytest

from judge_waves import rows
from mla_tune.measuring.recording import Recording

DATA = Path(__file__).parents[1] / "data" / "h100"


def results(backend, judge="random"):
    parts = ("grid", judge)
    loaded = [Recording.load(DATA / f"eager_{backend}_{part}.jsonl.gz") for part in parts]
    return {row.rule: row.results for row in rows(*loaded)}


@pytest.mark.parametrize("judge", ["random", "fresh"])
@pytest.mark.parametrize(("backend", "answered"), [("triton_mla", 0.95), ("flash_attn_mla", 0.85)])
def test_no_answer_of_the_model_is_slower_than_the_default(backend, answered, judge):
    found = results(backend, judge)["waves"]
    assert len(found) == 60
    assert np.mean([result.outcome != "miss" for result in found]) >= answered
    assert max(result.loss for result in found) <= 0
    regrets = [result.regret for result in found if result.outcome == "plan"]
    assert np.mean(regrets) <= 0.001
    assert max(regrets) <= 0.01


def test_the_nearest_entry_of_triton_mla_is():
    """What the model is there for."""
    plans = [result for result in results("triton_mla")["nearest"] if result.outcome == "plan"]
    assert max(result.loss for result in plans) > 0.4
