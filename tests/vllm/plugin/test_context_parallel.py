"""Decode context parallelism in vLLM's own builder: the heads of all ranks, the lengths of one.

The other ranks are left out: what they gather and combine is the same for every plan.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from mla_tune.plan.plan import UNTUNED, Plan
from tabled_engine import DIMENSIONS, WriteTable, cpu_header, entry

os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
pytest.importorskip("vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.usefixtures("a_gpus_worth_of_units")]

from vllm_on_cpu import start  # noqa: E402

RANKS = 2
HEADS = DIMENSIONS | {"num_q_heads": 16 * RANKS}
LOCAL = {"mode": "graph", "max_model_len": 4096 // RANKS}


@pytest.fixture
def local_table(write_table: WriteTable) -> Path:
    return write_table(
        cpu_header(model=HEADS, engine=LOCAL),
        entry("2q1s{64,128}", Plan(num_kv_splits=2)),
        entry("8q1s64", UNTUNED),
    )


def test_a_table_of_all_heads_and_local_lengths_acts(plugin: Any, local_table: Path) -> None:
    plugin(local_table)
    engine = start(captures=(2, 4, 8), context_parallel=RANKS)
    facts = engine.deployment.facts
    assert dict(facts.model)["num_q_heads"] == 32
    assert (facts.max_model_len, facts.context_parallel) == (2048, RANKS)
    built = engine.builder.build_for_cudagraph_capture(engine.batch("2q1s200", longest=4096))
    assert built.max_seq_len == 2 * 512
    assert built.decode.seq_lens.tolist() == [100, 100]
    untuned = engine.builder.build_for_cudagraph_capture(engine.batch("4q1s200", longest=4096))
    assert untuned.max_seq_len == 4096 // RANKS
    engine.builder.build(0, engine.batch("2q1s300"))
    assert engine.deployment.counts.outcomes == {"hit": 1}
    assert engine.deployment.counts.beyond == 0


def test_lengths_beyond_the_table_are_counted_by_what_one_rank_holds(
    plugin: Any, write_table: WriteTable, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLA_TUNE_UNGUARDED", "1")
    measured = entry("2q1s{64,128}", Plan(num_kv_splits=2), holds_to=128)
    plugin(write_table(cpu_header(model=HEADS, engine=LOCAL), measured))
    engine = start(captures=(2,), context_parallel=RANKS)
    engine.builder.build_for_cudagraph_capture(engine.batch("2q1s200", longest=4096))
    # 128 tokens a rank were measured, and an entry speaks for 1.5 times that.
    engine.builder.build(0, engine.batch("2q1s384"))
    assert engine.deployment.counts.beyond == 0
    engine.builder.build(0, engine.batch("2q1s386"))
    assert engine.deployment.counts.beyond == 1
    assert any("serves KV lengths beyond" in message for message in messages)


def test_a_table_of_one_rank_s_heads_is_for_another_engine(
    plugin: Any, graph_table: Path, messages: list[str]
) -> None:
    plugin(graph_table)
    engine = start(captures=(2,), context_parallel=RANKS)
    assert engine.deployment.lookups is None
    assert any("num_q_heads 16 (engine: 32)" in message for message in messages)


def test_eager_tables_are_left_out_and_said_to_be(
    plugin: Any, local_table: Path, write_table: WriteTable, messages: list[str]
) -> None:
    engine = LOCAL | {"mode": "eager"}
    eager = write_table(
        cpu_header(mode="eager", model=HEADS, engine=engine), entry("4q1s64", Plan(num_kv_splits=2))
    )
    plugin(local_table, eager)
    started = start(captures=(2,), context_parallel=RANKS)
    assert started.deployment.lookups is not None
    assert started.deployment.lookups.eager_table is None
    assert any("eager tables are not used with decode context" in message for message in messages)
