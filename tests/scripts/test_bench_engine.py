import json
import random
import sys

import pytest

import bench_engine
from engine_cells import DEFAULT, OTHER, PLUGIN, TWIN
from stepped_requests import Step


class FakeEngine:
    """Answers as a `ServedEngine` does; the plugin's is as fast as the default, within noise."""

    started = []  # noqa: RUF012
    noise = random.Random(0)
    scatter = 0.0

    def __init__(self, name, settings):
        self.name = name
        self.settings = settings
        self.facts = {
            "vllm": "0.26.0",
            "gpu": "NVIDIA H200",
            "used_gib": 20.0 if settings.tables else 28.0,
            "kv_cache_gib": 16.0,
            "kv_cache_tokens": 2_000_000,
            "total_gib": 140.0,
        }
        self.asked = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def start(self):
        self.started.append(self)

    def stop(self):
        pass

    def send(self, what, **arguments):
        self.asked.append((what, arguments))

    def answer(self):
        return None

    def said(self):
        return []

    def ask(self, what, **arguments):
        self.send(what, **arguments)
        if what == "logprobs":
            shift = 0.001 if arguments["cached"] else 0.0
            shift *= arguments["context"] if arguments["context"] == 512 else 1
            return [[1.0, 2.0, 3.0 + shift]]
        if what == "counts":
            return []
        if what == "begin_trace":
            self.trace_requests = arguments["requests"]
            return None
        if what == "trace_steps":
            return [Step(8, 8, 8, self.noise.lognormvariate(0, 0.01))] * arguments["count"]
        return self.noise.lognormvariate(0, self.scatter)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_engine, "ServedEngine", FakeEngine)
    monkeypatch.setattr(FakeEngine, "started", [])
    out = tmp_path / "engine.json"

    def run(*more):
        FakeEngine.started.clear()
        command = ["bench_engine.py", "--tables", "t", "--out", str(out), "--no-kv-run"]
        command += ["--batches", "1,8", "--contexts", "1k", "--cell-seconds", "0", *more]
        monkeypatch.setattr(sys, "argv", command)
        return bench_engine.main(), json.loads(out.read_text())

    return run


def test_a_second_run_adds_rounds_where_the_first_was_undecided(run, monkeypatch):
    monkeypatch.setattr(FakeEngine, "scatter", 0.5)
    status, first = run()
    assert (status, first["starts"]) == (0, 1)
    assert [engine.name for engine in FakeEngine.started] == ["warm-up", DEFAULT, PLUGIN, TWIN]
    assert first["memory"]["given_back_gib"] == pytest.approx(8.0)
    monkeypatch.setattr(FakeEngine, "scatter", 0.0)
    _, second = run("--extends", "256", "--extend-batches", "8", "--extend-contexts", "1k")
    assert [engine.name for engine in FakeEngine.started] == ["warm-up", PLUGIN, TWIN, DEFAULT]
    assert [cell["rounds"] for cell in second["decode"]] == [12, 12]
    assert len(second["extend"]) == 1
    assert second["starts"] == 2
    before = [cell["rounds"] for cell in second["extend"]]
    _, third = run("--extends", "256", "--extend-batches", "8", "--extend-contexts", "1k")
    assert [cell["rounds"] for cell in third["extend"]] == before


def test_another_engine_is_not_joined(run):
    run()
    with pytest.raises(SystemExit, match="--heads 16, not 128: choose another --out"):
        run("--heads", "128")


def test_two_engines_leave_room_for_more_requests(run):
    status, found = run("--no-twin", "--no-warm-up", "--batches", "8,4000")
    assert [engine.name for engine in FakeEngine.started] == [DEFAULT, PLUGIN]
    assert status == 0
    # 4000 requests of 1k are more than the KV cache holds.
    assert [cell["batch"] for cell in found["decode"]] == [8]
    assert "twins" not in found["decode"][0]


def test_a_trace_is_served_by_all_engines(run, tmp_path, capsys):
    trace = tmp_path / "trace.csv"
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:00:00.0000000,900,40\n"
        "2023-11-16 18:00:00.3000000,30,400\n"
    )
    status, found = run("--batches", "", "--trace", str(trace), "--trace-steps", "600")
    assert status == 0
    assert [engine.trace_requests for engine in FakeEngine.started[1:]] == [
        [(0, 900, 40), (10, 30, 400)]
    ] * 3
    assert found["decode"] == []
    assert found["trace"]["decode"]["steps"] == 600
    assert "tokens/s" in capsys.readouterr().out
    trace.write_text("TIMESTAMP\n")
    with pytest.raises(SystemExit, match="no column ContextTokens"):
        run("--trace", str(trace))


def test_an_engine_with_other_tables(run):
    _, found = run("--no-twin", "--no-warm-up", "--other-tables", "splits")
    assert [(engine.name, engine.settings.tables) for engine in FakeEngine.started] == [
        (DEFAULT, None),
        (PLUGIN, "t"),
        (OTHER, "splits"),
    ]
    assert all("over_other" in cell for cell in found["decode"])
    with pytest.raises(SystemExit, match="--other-tables splits, not None"):
        run("--no-twin")
