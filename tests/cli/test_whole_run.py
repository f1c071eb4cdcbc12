from pathlib import Path

import pytest

from fake_device import ENVIRONMENT, workload
from mla_tune.cli.whole_run import WholeRun
from mla_tune.session import Setup
from mla_tune.shapes import MlaDimensions
from mla_tune.table import Header
from mla_tune.tuning.job import TableJob

SMALL = [workload(f"{batch}q1s64") for batch in (1, 2, 4)]
LARGE = workload("128q1s32k")
HEADER = Header.of(ENVIRONMENT, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 4096)
JOB = TableJob(Setup("TORCH_MLA", MlaDimensions(2)), (*SMALL, LARGE), HEADER, Path("a.yaml"))


def test_what_is_left_is_estimated_by_its_cost_and_not_by_its_count():
    whole = WholeRun()
    assert whole.begun([JOB]) == 4
    for each in SMALL:
        assert whole.time_left == ""
        whole.measured(JOB, each, 2.0)
        assert whole.pass_by(JOB, each)
    # 4 million tokens of KV take 2 ms a sample by `cost_of`, where 50 µs are those of a small one.
    assert whole.seconds_left() == pytest.approx(2.0 * (50 + 2097) / 50, rel=0.05)
    assert whole.time_left.startswith("about ")
    assert not whole.pass_by(JOB, SMALL[0])
    assert whole.pass_by(JOB, LARGE)
    assert whole.time_left == ""


def test_the_estimate_moves_between_two_decisions(monkeypatch):
    whole = WholeRun()
    whole.begun([JOB])
    now = 100.0
    monkeypatch.setattr("mla_tune.cli.whole_run.time.monotonic", lambda: now)
    for each in SMALL:
        whole.measured(JOB, each, 2.0)
        whole.pass_by(JOB, each)
    before = whole.seconds_left()
    now += 5.0
    assert whole.seconds_left() == pytest.approx(before - 5.0)
