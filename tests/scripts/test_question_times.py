from types import SimpleNamespace

import pytest

from mla_tune.measuring.worker_client import WorkerBench
from question_times import QuestionTimes


def test_answers_are_added_up_by_device_and_question(monkeypatch):
    now = [0.0]

    def answer(bench, name, takes_s):
        now[0] += takes_s
        if name == "verify":
            raise ValueError(bench.device)
        return takes_s

    monkeypatch.setattr(WorkerBench, "_ask", answer)
    times = QuestionTimes(clock=lambda: now[0])
    one, other = (SimpleNamespace(device=f"cuda:{number}") for number in (0, 1))
    with times.watched():
        assert WorkerBench._ask(one, "race", 2.0) == 2.0
        WorkerBench._ask(one, "race", 1.0)
        with pytest.raises(ValueError, match="cuda:0"):
            WorkerBench._ask(one, "verify", 4.0)
        WorkerBench._ask(other, "load", 0.5)
    assert WorkerBench._ask is answer
    assert times.told("cuda:0") == "verify 4.0 s, race 3.0 s"
    assert times.told("cuda:1") == "load 0.5 s"
    assert times.told("cuda:2") == ""
