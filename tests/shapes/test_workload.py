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


def test_a_guard_has_no_weight_and_is_not_in_the_tables_key():
    workload = Workload.of([_case("8q1s64k", 0.0), _case("8q1s4k", 2.0), _case("8q1s1k")])
    assert str(workload) == "8q1s{1k,4k}"
    assert workload.measured_key == "8q1s{1k,4k}+{64k}"
    assert workload.shares() == [1 / 3, 2 / 3, 0.0]
    assert workload.holds_to == 65536
    assert Workload.of([_case("8q1s1k"), _case("8q1s256", 0.0)]).holds_to == 1024


def test_ragged_batches_of_the_size_stand_behind_the_uniform_ones():
    ragged = _case("20q1s9k_12q1s1k", 3.0)
    (workload,) = Workload.graph([ragged, _case("32q1s64k", 0.0), _case("32q1s1k")])
    assert str(workload) == "32q1s1k"
    assert workload.measured_key == "32q1s1k+{64k}+20q1s9k_12q1s1k"
    assert workload.shares() == [0.25, 0.0, 0.75]
    assert workload.holds_to == 65536
    assert Workload.of([ragged, _case("32q1s1k")]).holds_to is None


lengths = st.integers(4, 300_000)


@given(
    st.lists(lengths, min_size=1, max_size=5, unique=True),
    st.lists(lengths, max_size=4, unique=True),
    st.lists(st.tuples(st.integers(1, 7), lengths, lengths), max_size=3),
)
def test_a_measured_key_reads_back(listed, guards, ragged):
    def shape(*groups):
        return BatchShape.of([RequestGroup(4, kv_len, count) for count, kv_len in groups])

    cases = [Case(shape((8, kv_len))) for kv_len in listed]
    cases += [Case(shape((8, kv_len)), 0.0) for kv_len in guards]
    cases += [Case(shape((n, one), (8 - n, two))) for n, one, two in ragged if one != two]
    workload = Workload.of(cases)
    assert Workload.parse_measured(workload.measured_key) == workload
    assert workload.measured_key.startswith(str(workload))
    assert (workload.measured_key == str(workload)) == (len(cases) == len(listed))


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("8q1s1k+{}", "cannot be read"),
        ("8q1s1k+{4096}", "canonical"),
        ("8q1s1k+{4k}+{8k}", "cannot be read"),
        ("8q1s1k+4q1s2k", "differ in more than"),
        ("8q1s1k+4q1s9k_4q1s2k+{8k}", "cannot be read"),
        ("8q1s1k+", "cannot be read"),
        ("2q2k_8q1s1k+{8k}", "differ in more than|canonical|KV length"),
    ],
)
def test_what_no_measured_key_can_be_is_refused(key, says):
    with pytest.raises(InputError, match=says):
        Workload.parse_measured(key)
    with pytest.raises(InputError):
        Workload.parse(key)


def test_a_workload_is_chosen_for_a_uniform_case_with_a_weight():
    with pytest.raises(ValueError, match="no uniform case of the workload has a weight"):
        Workload.of([_case("8q1s1k", 0.0), _case("8q1s2k", 0.0)])
    with pytest.raises(ValueError, match="no case of the workload has a weight"):
        Workload((_case("8q1s1k", 0.0),))
    with pytest.raises(ValueError, match="no uniform case of the workload has a weight"):
        Workload.of([_case("4q1s1k_4q1s2k"), _case("8q1s2k", 0.0)])
    with pytest.raises(ValueError, match="listed, guards, ragged"):
        Workload((_case("8q1s1k"), _case("4q1s1k_4q1s2k"), _case("8q1s2k")))


def test_cases_of_different_batches_are_no_workload():
    with pytest.raises(ValueError, match="more than their KV length"):
        Workload((_case("8q1s1k"), _case("4q1s1k")))
