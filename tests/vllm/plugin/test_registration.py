import pytest

from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.table.loading import load_tables
from mla_tune.vllm.plugin.lookups import Lookups
from mla_tune.vllm.plugin.registration import _as_asked
from tabled_engine import WriteTable, cpu_header, entry


@pytest.mark.parametrize("asked", ["", "0", "1"])
def test_a_plan_that_is_not_proven_acts_only_when_asked_for(
    asked: str,
    write_table: WriteTable,
    messages: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proven = entry("8q1s1k", Plan(num_kv_splits=4))
    path = write_table(cpu_header(), proven)
    found = Plan(num_kv_splits=2)
    path.write_text(
        path.read_text() + "  - {shape: 64q1s4k, plan: {num_kv_splits: 2}, latency_us: 5}\n"
    )
    monkeypatch.setenv("MLA_TUNE_UNPROVEN", asked)
    tables, problems = load_tables(str(path))
    (loaded,) = _as_asked(tables)
    plans = {found.shape: found.plan for found in loaded.table.entries}
    assert problems == []
    assert plans["64q1s4k"] == (found if asked == "1" else UNTUNED)
    assert plans["8q1s1k"] == proven.plan
    lookups = Lookups(loaded.table, None, unguarded=True)
    assert lookups.captured(64, 1).plan.get("num_kv_splits") == (2 if asked == "1" else None)
    assert len(messages) == 1
    assert "1 unproven plan" in messages[0]


@pytest.mark.parametrize("asked", ["", "1"])
def test_tables_of_sparse_backends_act_only_when_asked_for(
    asked: str,
    write_table: WriteTable,
    messages: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = cpu_header(mode="eager").engine.model_dump() | {"index_topk": 2048}
    sparse = cpu_header("FLASHMLA_SPARSE", "eager", engine=engine)
    path = write_table(sparse, entry("8q16s1k", Plan(reorder_batch_threshold=1)))
    monkeypatch.setenv("MLA_TUNE_UNPROVEN", asked)
    tables, problems = load_tables(str(path))
    assert problems == []
    assert len(_as_asked(tables)) == (1 if asked else 0)
    assert [("FLASHMLA_SPARSE are left alone" in message) for message in messages] == (
        [] if asked else [True]
    )
