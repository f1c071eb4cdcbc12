import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.errors import InputError
from mla_tune.shapes import BatchShape, Case, RequestGroup, Workload


def _case(spec, weight=1.0):
    return Case(BatchShape.parse(spec), weight)


def test_eager_workloads_are_one_a_shape():
    workloads = Workload.eager([_case("8q1s1k"), _case("8q1s2k")])
    assert [str(workload) for workload in workloads] == ["8q1s1k", "8q1s2k"]


def test_graph_workloads_gather_the_kv_lengths_of_a_batch_size():
    cases = [_case("8q1s2k", 3.0), _case("4q1s1k"), _case("8q1s512")]
    workloads = Workload.graph(cases)
    assert [str(workload) for workload in workloads] == ["8q1s{512,2k}", "4q1s1k"]
    assert workloads[0].shares() == [0.25, 0.75]
    assert workloads[0].weight == 4.0


@given(st.lists(st.integers(4, 300_000), min_size=1, max_size=6, unique=True))
def test_a_workloads_key_reads_back(kv_lens):
    cases = [Case(BatchShape.of([RequestGroup(4, kv_len, 8)])) for kv_len in sorted(kv_lens)]
    workload = Workload(tuple(cases))
    assert Workload.parse(str(workload)) == workload


@pytest.mark.parametrize("key", ["8q1s1024", "q1s{1k}", "q1s1k_q4s1k", "1q1s1k"])
def test_a_key_that_is_not_canonical_is_refused(key):
    with pytest.raises(InputError, match="canonical"):
        Workload.parse(key)


def test_cases_of_different_batches_are_no_workload():
    with pytest.raises(ValueError, match="more than their KV length"):
        Workload((_case("8q1s1k"), _case("4q1s1k")))
