from pathlib import Path

from mla_tune.errors import InputError
from mla_tune.plan.plan import Plan
from mla_tune.table import Entry
from mla_tune.tuning.result import Failure, TunedTable, TuneResult

PLAN = Entry(shape="q1s1k", plan=Plan(num_kv_splits=8), latency_us=1.0, default_us=2.0)
DEFAULT = Entry(shape="2q1s1k", plan="default", latency_us=1.0, default_us=1.0)


def test_each_is_a_line_for_a_person():
    tuned = TunedTable(Path("out/a.yaml"), (PLAN, DEFAULT))
    failure = Failure(Path("out/a.yaml"), ("q4s1k",), InputError("it\ndoes not fit", valid="less"))
    assert repr(tuned) == "<TunedTable out/a.yaml: 2 entries, 1 with a plan>"
    assert repr(failure) == r"<Failure a: q4s1k: it\ndoes not fit>"
    assert repr(TuneResult((tuned,), (failure,))) == "<TuneResult 1 table, 2 entries, 1 failure>"
