import json
import random
import sys

import pytest

import bench_engine
from bench_engine import DEFAULT, PLUGIN, TWIN, is_open, join, paired, pooled, taking_turns
from mla_tune.tuning.decide import NARROW


class NoisyEngine:
    """A decode step with 3 % of noise, and with drift that all engines share."""

    def __init__(self, name, latency_ms, asked):
        self.name = name
        self._latency_ms = latency_ms
        self._noise = random.Random(name)
        self._asked = asked

    def ask(self, what, **arguments):  # noqa: ARG002
        self._asked.append(self.name)
        drift = 1 + 0.001 * len(self._asked)
        return self._latency_ms * drift * self._noise.lognormvariate(0, 0.03)


def _cell(plugin_ms, seconds=60.0):
    asked = []
    engines = [
        NoisyEngine(name, plugin_ms if name == PLUGIN else 2.0, asked)
        for name in (DEFAULT, PLUGIN, TWIN)
    ]
    return taking_turns(engines, seconds, lambda engine: engine.ask("decode")), asked


@pytest.mark.parametrize(("plugin_ms", "speedup"), [(1.25, 1.6), (2.0, 1.0), (2.2, 0.909)])
def test_speedup_is_found_in_spite_of_noise_and_drift(plugin_ms, speedup):
    cell, _ = _cell(plugin_ms)
    assert cell["speedup"]["low"] <= speedup * 1.01
    assert cell["speedup"]["high"] >= speedup * 0.99
    assert abs(cell["speedup"]["median"] / speedup - 1) < 0.03


def test_twins_are_alike():
    cell, _ = _cell(1.25)
    assert cell["twins"]["low"] < 1.02
    assert cell["twins"]["high"] > 0.98


def test_rounds_end_when_the_speedup_is_known_or_the_time_is_up():
    clear, _ = _cell(1.0)
    assert clear["rounds"] == bench_engine.MIN_ROUNDS
    close, _ = _cell(2.0)
    width = close["speedup"]["high"] - close["speedup"]["low"]
    assert close["rounds"] == bench_engine.MAX_ROUNDS or width / 2 <= NARROW * 1.01
    short, _ = _cell(2.0, seconds=0.0)
    assert short["rounds"] == bench_engine.MIN_ROUNDS


def test_cells_of_any_size_are_pooled_by_their_ratios():
    short, _ = _cell(2.0, seconds=0.0)
    long = paired({name: [50.0] * 6 for name in (DEFAULT, TWIN, PLUGIN)})
    both = pooled([short, long])
    assert both["rounds"] == short["rounds"] + 6
    assert both["speedup"]["low"] <= 1.0 <= both["speedup"]["high"]


def test_every_engine_goes_first_equally_often():
    _, asked = _cell(2.0, seconds=0.0)
    rounds = [asked[start] for start in range(3, len(asked), 3)]
    assert {rounds.count(name) for name in (DEFAULT, PLUGIN, TWIN)} == {2}


def _samples(default_ms, plugin_ms):
    return paired({DEFAULT: default_ms, TWIN: default_ms, PLUGIN: plugin_ms})


def test_open_is_what_is_missing_or_undecided():
    case = {"batch": 8, "context": 1024}
    assert is_open([], case, floor=0.99)
    for plugin_ms, expected in (([1.0] * 6, False), ([1.2] * 6, False), ([0.9, 1.2] * 3, True)):
        assert is_open([case | _samples([1.0] * 6, plugin_ms)], case, floor=0.99) is expected
    assert not is_open([case | {"agrees": False}], case, floor=0.99)
    extend = case | {"new_tokens": 256}
    assert is_open([case | _samples([1.0] * 6, [1.0] * 6)], extend, floor=0.99)


def test_rounds_of_later_engines_are_joined():
    case = {"batch": 8, "context": 1024}
    cells = []
    join(cells, case | _samples([1.0] * 6, [0.9, 1.2] * 3))
    join(cells, case | _samples([1.0] * 6, [1.0] * 6))
    assert [cell["rounds"] for cell in cells] == [12]
    assert cells[0]["speedup"]["median"] == pytest.approx(1.0)
    assert cells[0]["batch"] == 8


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


def _result(*, plugin_ms=1.0, agrees=True):
    samples = {DEFAULT: [2.0] * 6, TWIN: [2.0] * 6, PLUGIN: [plugin_ms] * 6}
    cell = {"batch": 8, "context": 1024, **paired(samples)}
    logprobs = {"plugin": 0.01, "one_prefill": 0.01, "half_context": 1.0, "agrees": agrees}
    return {
        "arguments": {"backend": "TRITON_MLA"},
        "engines": {DEFAULT: {"vllm": "0.26.0", "gpu": "NVIDIA H200"}},
        "decode": [cell],
        "extend": [],
        "logprobs": [{"batch": 8, "context": 1024, "new_tokens": 1, **logprobs}],
        "memory": {"given_back_gib": 7.9},
        "plugin": ["TRITON_MLA after 9 steps"],
    }


@pytest.mark.parametrize(
    ("case", "status", "said"),
    [
        ({}, 0, "1 at least 0.99x, 0 undecided, 0 slower; 0 of 1 logprobs differ"),
        ({"plugin_ms": 2.1}, 1, "1 slower (8 x 1k)"),
        ({"agrees": False}, 1, "1 of 1 logprobs differ"),
    ],
)
def test_report_says_what_is_slower_and_what_differs(capsys, case, status, said):
    assert bench_engine._report(_result(**case), floor=0.99) == status
    assert said in capsys.readouterr().out
