import pytest
from pool_cases import gpu, jobs

from fake_device import DEFAULT, workload
from mla_tune.shapes import BatchShape, Workload
from mla_tune.shapes.workload import Case
from mla_tune.tuning.pool.sentinels import disagreements, sentinels_of, sighting

WORKLOADS = [workload(f"{count}q1s1k") for count in (2, 4, 8, 16, 32)]


def test_sentinels_are_of_the_smallest_a_middle_and_the_largest_size():
    cost = {each: number for number, each in enumerate(WORKLOADS)}
    assert sentinels_of(WORKLOADS[::-1], cost) == [WORKLOADS[0], WORKLOADS[2], WORKLOADS[4]]
    assert sentinels_of(WORKLOADS[:1], cost) == WORKLOADS[:1]
    assert sentinels_of(WORKLOADS[:2], cost) == WORKLOADS[:2]


def test_a_sighting_is_the_median_of_the_default(tmp_path):
    bench = gpu(0, noise=0.01, bias=0.0)
    bench.open(jobs(tmp_path)[0].setup)
    seen = sighting(bench, WORKLOADS[:2])
    assert list(seen) == ["2q1s1k", "4q1s1k"]
    assert all(us == pytest.approx(100, rel=0.02) for us in seen.values())
    assert all(plans == (DEFAULT,) for *_, plans in bench.tuned)


def test_a_sighting_is_of_the_listed_lengths(tmp_path):
    bench = gpu(0)
    bench.open(jobs(tmp_path)[0].setup)
    shapes = [Case(BatchShape.parse("4q1s1k")), Case(BatchShape.parse("4q1s64k"), weight=0.0)]
    assert list(sighting(bench, [Workload.of(shapes)])) == ["4q1s1k"]


def test_what_cannot_be_measured_is_left_out(tmp_path):
    bench = gpu(0, race_faults={DEFAULT: "raised"})
    bench.open(jobs(tmp_path)[0].setup)
    assert sighting(bench, WORKLOADS[:2]) == {}


def test_the_slower_of_two_is_named_and_so_is_the_odd_one_of_many():
    assert disagreements({"a": {"x": 100.0}, "b": {"x": 107.0}}) == {"b": pytest.approx(1.07)}
    several = {name: {"x": us} for name, us in zip("abcd", (100, 101, 100, 90), strict=True)}
    assert disagreements(several) == {"d": pytest.approx(0.9)}


def test_only_shapes_that_all_measured_are_compared():
    seen = {"a": {"x": 100.0, "y": 10.0}, "b": {"x": 100.0}, "c": {"x": 100.0, "y": 20.0}}
    assert disagreements(seen) == {}
    assert disagreements({"a": {"x": 1.0}, "b": {"y": 9.0}}) == {}


@pytest.mark.parametrize("seen", [{}, {"a": {"x": 1.0}}])
def test_where_there_is_nothing_to_compare_with_nothing_is_named(seen):
    assert disagreements(seen) == {}


def test_a_scatter_within_three_percent_is_usual():
    assert disagreements({"a": {"x": 100.0}, "b": {"x": 102.9}}) == {}
