"""Plans that were tried, from recordings and journals."""

import pytest

from mla_tune.report.tried import Latency, recorded
from report_material import ROOT

H100 = ROOT / "tests" / "data" / "h100"


def test_the_interval_of_a_median_is_of_its_order_statistics():
    # Binomial: of 20 samples the 6th and the 15th hold the median in 95.9 %.
    assert Latency.of(range(1, 21)) == Latency(10.5, 6, 15)
    assert Latency.of([3.0, 1.0, 2.0]) == Latency(2.0, 1.0, 3.0)


@pytest.fixture(scope="module")
def graph():
    return recorded(H100 / "graph_triton_mla_splits.jsonl.gz")


def test_a_recording_gives_each_batch_of_its_workloads(graph):
    assert {each.setting.of["backend"] for each in graph.tried} == {"TRITON_MLA"}
    first = graph.tried[0]
    assert first.default["num_kv_splits"] == 256
    assert len(first.latencies) == 33
    assert all(each.winner in each.latencies for each in graph.tried)


def test_the_winner_is_of_the_whole_workload(graph):
    for workload in {each.workload for each in graph.tried}:
        assert len({each.winner for each in graph.tried if each.workload == workload}) == 1


def test_failures_have_their_reason():
    seeds = ROOT / "tests" / "data" / "seeds"
    failed = recorded(seeds / "recording-2.jsonl.gz").failed
    assert len(failed) == 2
    assert all(each.why and each.plan for each in failed)
