import random
import types

import pytest

from engine_cells import DEFAULT, PLUGIN, TWIN
from engine_trace import arrivals, compared, lines, served, slower
from mla_tune.traffic.trace import TracedRequest
from stepped_requests import Step

TURNS = types.SimpleNamespace(
    trace_steps=60, segment_steps=20, trace_step_ms=10.0, max_model_len=100
)


class FakeEngine:
    """Decodes of growing batches, every tenth step with a prefill, at a speed of its own."""

    def __init__(self, name, factor, asked):
        self.name = name
        self._factor = factor
        self._asked = asked
        self._done = 0
        self._noise = random.Random(name)

    def ask(self, what, **arguments):
        self._asked.append((self.name, what))
        if what == "begin_trace":
            assert arguments["requests"]
            return None
        steps = []
        for _ in range(arguments["count"]):
            self._done += 1
            batch, prefill = 10 + self._done // 10, 500 * (self._done % 10 == 0)
            ms = (batch * self._factor + prefill / 50) * self._noise.lognormvariate(0, 0.01)
            steps.append(Step(batch, batch + prefill, batch - (prefill > 0), ms))
        return steps


def segments(plugin=0.5, twin=1.0, turns=TURNS, asked=None):
    factors = {DEFAULT: 1.0, PLUGIN: plugin, TWIN: twin}
    engines = {
        name: FakeEngine(name, factor, [] if asked is None else asked)
        for name, factor in factors.items()
        if factor
    }
    return served(engines, [(0, 5, 5)], turns)


def test_time_is_counted_in_steps():
    trace = [
        TracedRequest(0.0, 10, 5),
        TracedRequest(0.099, 20, 0),
        TracedRequest(0.3, 90, 11),  # longer than the engine admits
        TracedRequest(0.6, 1, 1),  # after the last step
    ]
    assert arrivals(trace, TURNS) == [(0, 10, 5), (9, 20, 1)]


def test_every_segment_begins_with_another_engine():
    asked = []
    segments(asked=asked)
    turns = [name for name, what in asked if what == "trace_steps"]
    assert turns == [DEFAULT, PLUGIN, TWIN, PLUGIN, TWIN, DEFAULT, TWIN, DEFAULT, PLUGIN]


def test_percentiles_of_decode_steps_are_compared():
    result = compared(segments())
    assert (result["steps"], result["alike"]) == (60, 1.0)
    assert (result["decode"]["steps"], result["all"]["steps"]) == (54, 60)
    for row in result["decode"]["percentiles"]:
        assert row["speedup"]["median"] == pytest.approx(2.0, rel=0.05)
        assert row["speedup"]["low"] <= row["speedup"]["median"] <= row["speedup"]["high"]
        assert row["twins"]["median"] == pytest.approx(1.0, abs=0.05)
    rates = result["decode"]["tokens_per_s"]
    assert rates[PLUGIN] / rates[DEFAULT] == pytest.approx(2.0, rel=0.02)
    # Prefills take the same time in both: of the slowest steps less is gained.
    assert result["all"]["percentiles"][-1]["speedup"]["median"] < 1.8
    assert slower(result, floor=0.99) == []
    told = "\n".join(lines(result))
    assert "60 steps, 100.0% alike" in told
    assert "trace, decode steps, p99: " in told


def test_a_slower_percentile_is_named():
    found = slower(compared(segments(plugin=1.3)), floor=0.99)
    assert "trace, decode steps, p50" in found
    assert "twins" not in "\n".join(lines(compared(segments(twin=None))))


def test_steps_of_other_batches_are_left_out():
    taken = segments()
    late = taken[PLUGIN][1]
    taken[PLUGIN][1] = [step._replace(requests=step.requests + 1) for step in late[:5]] + late[5:]
    result = compared(taken)
    assert (result["steps"], result["alike"]) == (55, pytest.approx(55 / 60))
