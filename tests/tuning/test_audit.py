"""What is wrong with a table that can be read."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.table import CaseResult, Entry, Speedup, TableFile
from mla_tune.tuning.audit import audited, twins
from modelled_table import HEADER

DOCUMENT = SimpleNamespace(where=lambda keys: f"table.yaml:{keys[1]}")
GOOD = Entry(
    shape="q1s1k",
    plan=Plan(num_kv_splits=4),
    latency_us=10.0,
    default_us=15.0,
    speedup=Speedup(median=1.5, low=1.4, high=1.6),
)


def case(median: float, high: float) -> CaseResult:
    speedup = Speedup(median=median, low=median - 0.01, high=high)
    return CaseResult(
        kv_len=4096, weight=1.0, latency_us=10.0, default_us=10.0 * median, speedup=speedup
    )


def table(*entries: Entry) -> TableFile:
    return TableFile(HEADER, entries, DOCUMENT)  # type: ignore[arg-type]


def test_what_a_run_publishes_is_right():
    default = GOOD.model_copy(update={"plan": UNTUNED, "shape": "q1s2k"})
    good_case = GOOD.model_copy(update={"cases": (case(0.995, 1.01), case(1.8, 1.9))})
    assert list(audited(table(GOOD, default, good_case))) == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"speedup": None}, "without a measurement against the default"),
        ({"default_us": None}, "without a measurement against the default"),
        ({"speedup": Speedup(median=1.5, low=0.99, high=1.6)}, "not proven to be faster"),
        ({"speedup": Speedup(median=1.5, low=1.6, high=1.7)}, "not that of its latencies"),
        ({"default_us": 12.0}, "not that of its latencies"),
        ({"cases": (case(0.98, 1.01),)}, "slower than the default at 4096 tokens"),
        ({"cases": (case(0.995, 0.999),)}, "slower than the default at 4096 tokens"),
    ],
)
def test_an_entry_that_no_run_would_publish_is_named(changed, says):
    (problem,) = audited(table(GOOD.model_copy(update=changed)))
    assert problem.startswith("table.yaml:0: q1s1k: ")
    assert says in problem


def test_two_tables_for_one_thing_are_named():
    other = HEADER.model_copy(update={"kv_cache_dtype": "fp8"})
    tables = [
        (Path("a.yaml"), table()),
        (Path("b.yaml"), TableFile(other, (), DOCUMENT)),  # type: ignore[arg-type]
        (Path("c.yaml"), table()),
    ]
    assert list(twins(tables)) == ["c.yaml: true for the same as a.yaml"]
