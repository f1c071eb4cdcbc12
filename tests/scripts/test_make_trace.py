import statistics

import pytest

from make_trace import Traffic, trace_lines
from mla_tune.traffic.trace import load_trace


def test_the_same_seed_makes_the_same_trace():
    lines = list(trace_lines(Traffic(requests=50), seed=3))
    assert lines == list(trace_lines(Traffic(requests=50), seed=3))
    assert lines != list(trace_lines(Traffic(requests=50), seed=4))


def test_a_trace_is_as_it_was_asked_for(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("\n".join(trace_lines(Traffic(requests=4000, per_second=5.0), seed=0)))
    requests = load_trace(path)
    assert len(requests) == 4000
    assert statistics.median(each.context for each in requests) == pytest.approx(1000, rel=0.05)
    assert len(requests) / requests[-1].arrival_s == pytest.approx(5.0, rel=0.25)
    # A Poisson process has as many in each second as their variance.
    seconds = [0] * (int(requests[-1].arrival_s) + 1)
    for each in requests:
        seconds[int(each.arrival_s)] += 1
    assert statistics.variance(seconds) > 1.5 * statistics.mean(seconds)
