"""TRITON_MLA's splits in the installed vLLM, with its own kernels interpreted."""

import os
from pathlib import Path
from typing import Any

import pytest

from mla_tune.plan.plan import Plan
from tabled_engine import WriteTable, cpu_header, entry

# Triton decides at its import whether it interprets, and vLLM imports it.
os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
pytest.importorskip("vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.usefixtures("a_gpus_worth_of_units")]

import torch  # noqa: E402
from vllm_on_cpu import (  # noqa: E402
    splits_reaching_the_kernel,
    start,
)


def test_the_tabled_split_count_reaches_the_kernel_of_a_capture(
    plugin: Any, graph_table: Path, messages: list[str]
) -> None:
    plugin(graph_table)
    engine = start(captures=(1, 2, 4, 8))
    batch = engine.batch("2q1s128", longest=4096)
    metadata = engine.builder.build_for_cudagraph_capture(batch)
    tuned = engine.forward("2q1s128", metadata)
    assert engine.deployment.counts.verified == 1
    assert "INFO mla-tune: TRITON_MLA: num_kv_splits=4 reached the kernel for 2q1" in messages
    assert splits_reaching_the_kernel(engine, "2q1s128", metadata) == 4

    metadata.max_seq_len = 4096
    assert splits_reaching_the_kernel(engine, "2q1s128", metadata) == 8
    torch.testing.assert_close(engine.forward("2q1s128", metadata), tuned, rtol=2e-3, atol=2e-3)


def test_a_capture_without_an_entry_is_vllms_own(plugin: Any, graph_table: Path) -> None:
    plugin(graph_table)
    engine = start(captures=(2, 4, 8))
    for spec in ("4q1s128", "8q1s128"):
        metadata = engine.builder.build_for_cudagraph_capture(engine.batch(spec, longest=4096))
        assert metadata.max_seq_len == 4096
        assert splits_reaching_the_kernel(engine, spec, metadata) == 8


def test_the_warm_up_of_a_capture_compiles_the_same_kernel(plugin: Any, graph_table: Path) -> None:
    plugin(graph_table)
    engine = start(captures=(2,))
    assert engine.builder.build(0, engine.batch("2q1s1")).max_seq_len == 4 * 512


def test_a_replayed_step_keeps_its_graphs_choice(plugin: Any, graph_table: Path) -> None:
    plugin(graph_table)
    engine = start(captures=(2, 8))
    engine.builder.build_for_cudagraph_capture(engine.batch("2q1s128", longest=4096))
    for _ in range(3):
        engine.builder.build(0, engine.batch("2q1s200"))
    assert engine.deployment.counts.outcomes == {"hit": 3}


def test_an_idle_rank_leaves_one_replay_a_graph(
    plugin: Any, graph_table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.32 and 0.33 build the dummy steps of an idle data-parallel rank as for a capture."""
    plugin(graph_table)
    engine = start(captures=(2, 8))
    build, counts = engine.builder.build_for_cudagraph_capture, engine.deployment.counts
    captured = build(engine.batch("2q1s128", longest=4096))
    before = _everything_in(engine.deployment)

    def no_more(*_: object) -> None:
        raise AssertionError("a graph's choice was asked for again")

    monkeypatch.setattr(engine.builder.step_policy.choices, "captured", no_more)
    for _ in range(100):
        idle = build(engine.batch("2q1s1", longest=4096))
        assert idle.max_seq_len == captured.max_seq_len == 4 * 512
        engine.builder.build(0, engine.batch("2q1s200"))
    assert _everything_in(engine.deployment) == before
    assert len(engine.builder._replays) == 1
    assert counts.outcomes == {"hit": 100}
    assert not engine.builder.step_policy.failed


def test_an_idle_step_that_fails_leaves_the_replay(
    plugin: Any, graph_table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin(graph_table)
    engine = start(captures=(2,))
    builder, batch = engine.builder, engine.batch("2q1s128", longest=4096)
    builder.build_for_cudagraph_capture(batch)

    def fail(*_: object) -> object:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(builder, "metadata_fields", fail)
    builder.build_for_cudagraph_capture(batch)
    assert builder.build(0, engine.batch("2q1s200")).max_seq_len == 4 * 512


def _everything_in(deployment: Any) -> int:
    """How many objects a process keeps for a deployment."""
    seen: set[int] = set()
    left = [deployment.counts, deployment.planned]
    while left:
        item = left.pop()
        if id(item) not in seen:
            seen.add(id(item))
            if isinstance(item, dict):
                left += [*item.keys(), *item.values()]
            elif isinstance(item, list | tuple):
                left += item
            elif type(item).__module__.startswith("mla_tune"):
                left += getattr(item, "__dict__", {}).values()
    return len(seen)


def test_lengths_past_those_measured_are_reported(
    plugin: Any, write_table: WriteTable, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLA_TUNE_UNGUARDED", "1")
    plugin(write_table(cpu_header(), entry("2q1s{128,256}", Plan(num_kv_splits=4), holds_to=None)))
    engine = start(captures=(2,))
    engine.builder.build_for_cudagraph_capture(engine.batch("2q1s128", longest=4096))
    engine.builder.build(0, engine.batch("2q1s1k"))
    assert engine.deployment.counts.beyond == 1
    assert any("KV lengths beyond the 256" in message for message in messages)


def test_an_entry_of_uniform_batches_alone_leaves_the_graph_to_vllm(
    plugin: Any, write_table: WriteTable, messages: list[str]
) -> None:
    plugin(write_table(cpu_header(), entry("2q1s128", Plan(num_kv_splits=2), holds_ragged=False)))
    engine = start(captures=(2,))
    metadata = engine.builder.build_for_cudagraph_capture(engine.batch("2q1s128", longest=4096))
    assert metadata.max_seq_len == 4096
    assert any("1 of these were measured on uniform batches alone" in line for line in messages)


def test_a_graph_plan_proven_against_fewer_splits_is_not_used(
    plugin: Any, write_table: WriteTable
) -> None:
    """Against the 32 splits frozen at 16384, 16 won; against this engine's 8 nobody knows."""
    longer = cpu_header(engine={"mode": "graph", "max_model_len": 16384})
    plugin(write_table(longer, entry("2q1s128", Plan(num_kv_splits=2))))
    engine = start(captures=(2,))
    metadata = engine.builder.build_for_cudagraph_capture(engine.batch("2q1s128", longest=4096))
    assert metadata.max_seq_len == 4096


def test_an_eager_step_is_looked_up_by_its_lengths(plugin: Any, eager_table: Path) -> None:
    plugin(eager_table)
    engine = start()
    metadata = engine.builder.build(0, engine.batch("2q1s128"))
    assert splits_reaching_the_kernel(engine, "2q1s128", metadata) == 2
    assert engine.builder.build(0, engine.batch("2q1s1k")).max_seq_len == 1024
    assert engine.deployment.counts.outcomes == {"hit": 1, "miss": 1}
    assert engine.deployment.counts.verified == 1


def test_a_count_that_vllms_rule_never_gives_reaches_the_kernel(
    plugin: Any, write_table: WriteTable
) -> None:
    plugin(write_table(cpu_header(), entry("2q1s128", Plan(num_kv_splits=3))))
    engine = start(captures=(2,))
    metadata = engine.builder.build_for_cudagraph_capture(engine.batch("2q1s128", longest=4096))
    assert splits_reaching_the_kernel(engine, "2q1s128", metadata) == 3
    assert engine.deployment.counts.verified == 1


def test_a_count_beyond_vllms_largest_is_left_out(plugin: Any, write_table: WriteTable) -> None:
    plugin(write_table(cpu_header(mode="eager"), entry("2q1s128", Plan(num_kv_splits=512))))
    engine = start()
    assert engine.builder.build(0, engine.batch("2q1s128")).max_seq_len == 128


def test_a_count_beyond_vllms_largest_is_said_once(
    plugin: Any, write_table: WriteTable, messages: list[str]
) -> None:
    plugin(write_table(cpu_header(), entry("2q1s128", Plan(num_kv_splits=512))))
    for _ in range(2):
        engine = start(captures=(2,))
    metadata = engine.builder.build_for_cudagraph_capture(engine.batch("2q1s128", longest=4096))
    assert metadata.max_seq_len == 4096
    told = [message for message in messages if "cannot be asked for 512 splits" in message]
    assert len(told) == 1


def test_the_installed_rule_is_the_one_that_is_asked() -> None:
    from vllm.v1.attention.backends.mla import triton_mla

    from mla_tune.vllm.triton_splits import SplitRule

    rule = SplitRule.of_vllm(132)
    for length in (1, 1024, 4096, 131072):
        assert rule.splits(length) == triton_mla._compute_num_kv_splits(length, 132)


def test_a_release_with_another_split_rule_still_gets_the_tabled_count(
    plugin: Any, graph_table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if vLLM gave each split 2048 tokens at least."""
    from vllm.v1.attention.backends.mla import triton_mla

    def compute(max_seq_len: int, sm_count: int) -> int:
        return min(max(1, max_seq_len // 2048), 2 * sm_count)

    monkeypatch.setattr(triton_mla, "_compute_num_kv_splits", compute)
    plugin(graph_table)
    engine = start(captures=(2,))
    metadata = engine.builder.build_for_cudagraph_capture(engine.batch("2q1s128", longest=4096))
    assert splits_reaching_the_kernel(engine, "2q1s128", metadata) == 4


def test_a_skewed_batch_is_vllms_own(plugin: Any, eager_table: Path) -> None:
    """One request of 128 tokens and one of 16: no uniform entry speaks for them."""
    plugin(eager_table)
    engine = start()
    metadata = engine.builder.build(0, engine.batch("q1s128_q1s16"))
    assert metadata.max_seq_len == 128
    assert engine.deployment.counts.outcomes == {"skewed": 1}


def test_the_decodes_of_a_mixed_batch_are_looked_up_alone(plugin: Any, eager_table: Path) -> None:
    plugin(eager_table)
    engine = start()
    metadata = engine.builder.build(0, engine.batch("q100s300_2q1s128"))
    assert metadata.num_decodes == 2
    assert metadata.max_seq_len == 2 * 512
    assert engine.deployment.counts.outcomes == {"hit": 1}
