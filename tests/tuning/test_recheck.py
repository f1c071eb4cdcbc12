from dataclasses import replace

import pytest

from fake_device import DEFAULT, ENVIRONMENT, FakeBench, splits
from mla_tune.errors import InputError
from mla_tune.measuring.load import OthersLoad
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes import MlaDimensions
from mla_tune.table import CaseResult, Entry, Header, Speedup, TableFile, merge
from mla_tune.tuning.recheck import recheck

HEADER = Header.of(ENVIRONMENT, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 4096)
TWICE = Speedup(median=2.0, low=1.9, high=2.1)
LATENCIES = {DEFAULT: 100.0, splits(1): 50.0, splits(2): 120.0}


def entry(shape: str, plan: Plan, **more) -> Entry:
    known = {"default_us": 100.0, "latency_us": 50.0}
    return Entry(shape=shape, plan=plan, **(known | more))


@pytest.fixture
def rechecked(tmp_path):
    """Look again at entries on a fake device."""

    def look(bench: FakeBench, *entries: Entry, header: Header = HEADER):
        path = tmp_path / "t.yaml"
        merge(path, header, entries)
        return list(recheck(bench, TableFile.load(path), "cpu", rounds=16))

    return look


def test_a_plan_that_is_still_faster_is_good(rechecked):
    (found,) = rechecked(FakeBench(LATENCIES, noise=0.01), entry("8q1s1k", splits(1)))
    assert found.problem == ""
    assert found.speedup.median == pytest.approx(2.0, rel=0.05)


def test_a_plan_that_is_slower_now_is_a_problem(rechecked):
    (found,) = rechecked(FakeBench(LATENCIES, noise=0.01), entry("8q1s1k", splits(2)))
    assert "slower than the default" in found.problem


@pytest.mark.parametrize("faults", [{"race_faults": {splits(1): "died"}},
                                    {"check_faults": {splits(1): "wrong result"}}])  # fmt: skip
def test_a_plan_that_fails_now_is_a_problem(rechecked, faults):
    (found,) = rechecked(FakeBench(LATENCIES, **faults), entry("8q1s1k", splits(1)))
    assert found.speedup is None
    assert "scripted" in found.problem


def test_only_published_plans_are_measured(rechecked):
    bench = FakeBench(LATENCIES)
    found = rechecked(bench, entry("8q1s1k", UNTUNED), entry("8q1s2k", splits(1)))
    assert [result.entry.shape for result in found] == ["8q1s2k"]
    assert {key for key, _ in bench.raced} == {"8q1s2k"}


def test_what_was_never_proven_is_not_measured_again(rechecked):
    bench = FakeBench(LATENCIES, race_faults={DEFAULT: "died"})
    assert rechecked(bench, entry("8q1s1k", splits(1), default_us=None)) == []
    assert bench.raced == []


def test_the_weights_of_kv_lengths_are_those_of_the_table(rechecked):
    cases = tuple(
        CaseResult(kv_len=kv_len, weight=weight, latency_us=1.0, default_us=1.0, speedup=TWICE)
        for kv_len, weight in ((1024, 3.0), (2048, 1.0))
    )
    latencies = {DEFAULT: {1024: 100.0, 2048: 100.0}, splits(1): {1024: 50.0, 2048: 100.0}}
    bench = FakeBench(latencies)
    (found,) = rechecked(bench, entry("8q1s{1k,2k}", splits(1), cases=cases))
    assert found.speedup.median == pytest.approx(100.0 / 62.5)


GUARDED = tuple(
    CaseResult(kv_len=kv, weight=weight, latency_us=1.0, default_us=1.0, speedup=TWICE, shape=shape)
    for kv, weight, shape in ((1024, 1.0, None), (65536, 0.0, None), (9216, 1.0, "3q1s9k_5q1s1k"))
)


def test_guards_are_looked_at_again(rechecked):
    latencies = {
        DEFAULT: {1024: 100.0, 9216: 100.0, 65536: 100.0},
        splits(1): {1024: 50.0, 9216: 50.0, 65536: 105.0},
    }
    bench = FakeBench(latencies, noise=0.001)
    (found,) = rechecked(bench, entry("8q1s1k", splits(1), cases=GUARDED, holds_to=65536))
    assert bench.workload.measured_key == "8q1s1k+{64k}+3q1s9k_5q1s1k"
    assert found.speedup.median == pytest.approx(2.0, rel=0.01)
    assert found.problem == "slower than the default at 8q1s64k"


@pytest.mark.parametrize(
    ("shape", "cases", "says"),
    [
        ("8q1s2k", GUARDED, "its cases are those of 8q1s1k"),
        ("8q1s1k", GUARDED[1:], "no uniform case of the workload has a weight"),
    ],
)
def test_cases_of_another_shape_are_named(rechecked, shape, cases, says):
    with pytest.raises(InputError, match=says):
        rechecked(FakeBench(LATENCIES), entry(shape, splits(1), cases=cases))


def test_a_table_of_another_device_is_refused(rechecked):
    device = HEADER.device.model_copy(update={"name": "NVIDIA H200"})
    header = HEADER.model_copy(update={"device": device})
    with pytest.raises(InputError, match="the table is for NVIDIA H200, this is Fake Device"):
        rechecked(FakeBench(LATENCIES), entry("8q1s1k", splits(1)), header=header)


def test_what_is_too_noisy_to_tell_is_neither_good_nor_bad(rechecked):
    (found,) = rechecked(FakeBench(LATENCIES, noise=1.5, seed=3), entry("8q1s1k", splits(1)))
    assert found.problem == ""
    assert found.is_open
    assert str(found).endswith("too noisy to tell")


class Disturbed(FakeBench):
    def race(self, plans, rounds, seed, cases=None):
        taken = super().race(plans, rounds, seed, cases)
        return {plan: replace(s, others=OthersLoad("GPU", 0.4, (123,)), tainted="hot")
                for plan, s in taken.items()}  # fmt: skip


def test_what_befell_the_device_meanwhile_is_said(rechecked):
    (found,) = rechecked(Disturbed(LATENCIES), entry("8q1s1k", splits(1)))
    assert str(found) == (
        "8q1s1k: num_kv_splits=1: 2.000× (1.982–2.019) another process (pid 123) used up to 40% "
        "of the GPU meanwhile; no clean samples: hot"
    )
    assert not found.is_open
