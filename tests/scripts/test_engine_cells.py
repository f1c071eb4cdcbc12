import random

import pytest

import engine_cells
from engine_cells import (
    DEFAULT,
    OTHER,
    PLUGIN,
    TWIN,
    is_open,
    join,
    paired,
    pooled,
    taking_turns,
    told,
)
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
    assert clear["rounds"] == engine_cells.MIN_ROUNDS
    close, _ = _cell(2.0)
    width = close["speedup"]["high"] - close["speedup"]["low"]
    assert close["rounds"] == engine_cells.MAX_ROUNDS or width / 2 <= NARROW * 1.01
    short, _ = _cell(2.0, seconds=0.0)
    assert short["rounds"] == engine_cells.MIN_ROUNDS


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


def test_a_cell_without_a_twin_joins_one_with_it():
    case = {"batch": 8, "context": 1024}
    two = paired({DEFAULT: [2.0] * 6, PLUGIN: [1.0] * 6})
    assert two["speedup"]["median"] == pytest.approx(2.0)
    assert "twins" not in told(case | two)
    cells = []
    join(cells, case | _samples([2.0] * 6, [1.0] * 6))
    assert "twins" in told(cells[0])
    join(cells, case | two)
    assert cells[0]["rounds"] == 12


def test_other_tables_are_measured_against_the_default_and_the_plugins():
    cell = paired({DEFAULT: [4.0] * 6, OTHER: [2.0] * 6, PLUGIN: [1.0] * 6})
    assert cell["speedup"]["median"] == pytest.approx(4.0)
    assert cell["other_speedup"]["median"] == pytest.approx(2.0)
    assert cell["over_other"]["median"] == pytest.approx(2.0)
    assert "over the other tables 2.000" in told(cell)
    assert pooled([cell, cell])["over_other"]["median"] == pytest.approx(2.0)
