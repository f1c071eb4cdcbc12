import json
import sys

import pytest

import race_tables
from fake_device import DEFAULT, ENVIRONMENT, FakeBench, splits
from mla_tune.plan.plan import UNTUNED
from mla_tune.shapes import MlaDimensions
from mla_tune.table import Entry, Header, merge

HEADER = Header.of(ENVIRONMENT, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 4096)
LATENCIES = {DEFAULT: 100.0, splits(1): 50.0, splits(2): 40.0, splits(8): 120.0}


@pytest.fixture
def race(tmp_path, monkeypatch):
    """Race two tables of {shape: plan} on a fake device; returns the exit code and the JSON."""

    def race(first, second, **faults):
        bench = FakeBench(LATENCIES, noise=0.01, **faults)
        monkeypatch.setattr(bench, "device", "cpu", raising=False)
        monkeypatch.setattr(race_tables, "scratch_worker", lambda _: _held(bench))
        monkeypatch.setattr(race_tables, "alone", lambda *_, **__: _held(None))
        for name, plans in (("first", first), ("second", second)):
            entries = [
                Entry(shape=shape, plan=plan, default_us=100.0, latency_us=50.0)
                for shape, plan in plans.items()
            ]
            merge(tmp_path / f"{name}.yaml", HEADER, entries)
        out = tmp_path / "out.json"
        tables = [str(tmp_path / "first.yaml"), str(tmp_path / "second.yaml")]
        monkeypatch.setattr(sys, "argv", ["race_tables.py", *tables, "--json", str(out)])
        return race_tables.main(), json.loads(out.read_text()) if out.exists() else []

    return race


class _held:  # noqa: N801
    def __init__(self, what):
        self.what = what

    def __enter__(self):
        return self.what

    def __exit__(self, *_):
        pass


def test_what_both_tables_have_is_raced(race, capsys):
    first = {"8q1s1k": splits(1), "8q1s2k": UNTUNED, "8q1s4k": splits(1)}
    second = {"8q1s1k": splits(2), "8q1s2k": splits(2), "8q1s8k": splits(2)}
    status, found = race(first, second)
    assert status == 0
    by_shape = {each["shape"]: each for each in found}
    assert list(by_shape) == ["8q1s1k", "8q1s2k"]
    assert by_shape["8q1s1k"]["over_first"]["median"] == pytest.approx(1.25, rel=0.05)
    assert by_shape["8q1s1k"]["over_default"]["median"] == pytest.approx(2.5, rel=0.05)
    assert by_shape["8q1s2k"]["over_first"]["median"] == pytest.approx(2.5, rel=0.05)
    assert "2 workloads, over the default" in capsys.readouterr().out


def test_a_plan_slower_than_the_default_fails(race, capsys):
    status, _ = race({"8q1s1k": splits(1)}, {"8q1s1k": splits(8)})
    assert status == 1
    assert "SLOWER than the default: 8q1s1k" in capsys.readouterr().out


def test_a_plan_that_does_not_run_fails(race, capsys):
    status, found = race(
        {"8q1s1k": splits(1)}, {"8q1s1k": splits(2)}, race_faults={splits(2): "died"}
    )
    assert (status, found) == (1, [])
    assert "8q1s1k: " in capsys.readouterr().out


def test_tables_without_a_common_shape(race, capsys):
    status, found = race({"8q1s1k": splits(1)}, {"8q1s2k": splits(1)})
    assert (status, found) == (0, [])
    assert "no workload was raced" in capsys.readouterr().out
