"""Which tables act in the installed vLLM, and what is said where none does."""

import os
from pathlib import Path
from typing import Any

import pytest

from mla_tune.plan.plan import Plan
from mla_tune.table.header import Device
from mla_tune.vllm.plugin.replay import STEPS_BETWEEN_LOOKS
from tabled_engine import WriteTable, cpu_header, entry

# Triton decides at its import whether it interprets, and vLLM imports it.
os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
pytest.importorskip("vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.usefixtures("a_gpus_worth_of_units")]

from vllm_on_cpu import (  # noqa: E402
    registry,
    start,
)


def test_a_true_table_is_announced(plugin: Any, graph_table: Path, messages: list[str]) -> None:
    plugin(graph_table)
    engine = start(captures=(1, 2, 4, 8, 16, 32, 64))
    assert engine.deployment.lookups is not None
    assert f"INFO mla-tune: TRITON_MLA uses {graph_table} (3 entries, graph mode)" in messages
    (line,) = [message for message in messages if "decode graphs" in message]
    assert line.startswith(
        "WARNING mla-tune: TRITON_MLA: 3 of 7 decode graphs have an entry; "
        "q1, 4q1, 16q1, 64q1 have none"
    )


def test_a_wrong_table_is_refused_once_and_by_name(
    plugin: Any, write_table: WriteTable, messages: list[str]
) -> None:
    other = Device(name="NVIDIA H200", compute_capability="9.0", sm_count=132)
    path = write_table(cpu_header(device=other), entry("2q1s128", Plan(num_kv_splits=4)))
    plugin(path)
    for _ in range(2):
        engine = start(captures=(2,))
    batch = engine.batch("2q1s128", longest=4096)
    assert engine.builder.build_for_cudagraph_capture(batch).max_seq_len == 4096
    warnings = [message for message in messages if message.startswith("WARNING")]
    assert len(warnings) == 1
    assert "GPU NVIDIA H200 (engine: " in warnings[0]


def test_a_broken_table_falls_back(plugin: Any, graph_table: Path, messages: list[str]) -> None:
    graph_table.write_text(graph_table.read_text().replace("num_kv_splits: 4", "num_kv_splits: x"))
    plugin(graph_table)
    assert not registry().TRITON_MLA.is_overridden()
    assert any(message.startswith("ERROR mla-tune: not used") for message in messages)
    engine = start()
    assert not hasattr(engine.builder, "mla_tune_backend")


@pytest.mark.parametrize(
    "where", ["lookups", "eager", "fields_while_building", "metadata_fields", "count"]
)
def test_a_failure_in_our_code_falls_back_and_is_said_once(
    plugin: Any,
    eager_table: Path,
    messages: list[str],
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    plugin(eager_table)
    engine = start()
    policy, name = engine.builder.step_policy, "uniform" if where == "lookups" else where
    owner = {"lookups": engine.deployment.lookups.steps, "eager": policy, "count": policy}.get(
        where, engine.builder
    )
    works = getattr(owner, name)

    def fail(*arguments: object) -> object:
        if policy.failed:
            return works(*arguments)
        raise RuntimeError("no such luck")

    monkeypatch.setattr(owner, name, fail)
    failed = engine.builder.build(0, engine.batch("4q32s256"))
    assert failed.num_decodes == (4 if where in ("metadata_fields", "count") else 0)
    for _ in range(3):
        metadata = engine.builder.build(0, engine.batch("2q1s128"))
        assert metadata.max_seq_len == 128
    assert engine.builder.build(0, engine.batch("4q32s256")).num_decodes == 0
    errors = [message for message in messages if message.startswith("ERROR")]
    assert len(errors) == 1
    assert "no such luck" in errors[0]
    assert engine.deployment.counts.fallbacks == 1


def test_a_failure_while_a_replay_is_noted_leaves_it_as_captured(
    plugin: Any, graph_table: Path, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin(graph_table)
    engine = start(captures=(2,))
    engine.builder.build_for_cudagraph_capture(engine.batch("2q1s128", longest=4096))

    def fail() -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(engine.deployment.counts, "report", fail)
    for _ in range(2 * STEPS_BETWEEN_LOOKS):
        assert engine.builder.build(0, engine.batch("2q1s128")).max_seq_len == 4 * 512
    assert engine.deployment.counts.outcomes == {"hit": 2 * STEPS_BETWEEN_LOOKS}
    assert sum("no such luck" in message for message in messages) == 1
