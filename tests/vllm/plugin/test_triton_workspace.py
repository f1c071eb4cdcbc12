"""The workspace that TRITON_MLA reserves in the installed vLLM."""

import functools
import os
from pathlib import Path
from typing import Any

import pytest

from mla_tune.plan.plan import Plan
from tabled_engine import WriteTable, cpu_header, entry, vllm_version

# Triton decides at its import whether it interprets, and vLLM imports it.
os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
pytest.importorskip("vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.usefixtures("a_gpus_worth_of_units")]

from vllm_on_cpu import (  # noqa: E402
    splits_reaching_the_kernel,
    start,
    with_workspace,
)


def test_the_workspace_has_room_for_the_table_and_no_more(
    plugin: Any, graph_table: Path, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.v1.attention.backends.mla import triton_mla

    manager = with_workspace(monkeypatch)
    monkeypatch.setattr("mla_tune.vllm.plugin.splits.WAVES", 0)
    plugin(graph_table)
    engine = start(captures=(2, 8, 32))
    bytes_per_row_split = 16 * 513 * 4
    # 2 x 4, 8 x vLLM's 8 and 32 x 2; vLLM itself reserves 64 requests x 8.
    assert engine.builder._row_splits == 64
    assert manager._current_workspaces[0].numel() == 64 * bytes_per_row_split
    given_back = (64 * 8 - 64) * bytes_per_row_split / 2**30
    assert any(f"{given_back:.2f} GiB given back" in message for message in messages)

    manager.lock()
    # What the kernel would be given is asked for; running it takes Triton's interpreter 20 s.
    kernel = functools.wraps(triton_mla.decode_attention_fwd)(lambda *_, **__: None)
    monkeypatch.setattr(triton_mla, "decode_attention_fwd", kernel)
    for spec in ("8q1s128", "32q1s128"):
        captured = engine.builder.build_for_cudagraph_capture(engine.batch(spec, longest=4096))
        engine.forward(spec, captured)
    # Without an entry and a graph, vLLM's own 8 splits of 64 requests would not fit.
    eager = engine.builder.build(0, engine.batch("64q1s128", longest=4096))
    assert splits_reaching_the_kernel(engine, "64q1s128", eager) == 1
    assert engine.deployment.counts.capped == 1


def test_without_a_true_table_the_workspace_is_vllms(
    plugin: Any, write_table: WriteTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = with_workspace(monkeypatch)
    plugin(write_table(cpu_header(kv_cache_dtype="fp8"), entry("2q1s128", Plan(num_kv_splits=4))))
    engine = start(captures=(2, 8, 32))
    assert engine.builder._row_splits is None
    assert manager._current_workspaces[0].numel() == 64 * 8 * 16 * 513 * 4


@pytest.mark.parametrize("slots", [{"num_ubatches": 2}, {"num_lanes": 2}])
def test_with_several_workspaces_vllms_reservation_and_splits_stay(
    plugin: Any,
    graph_table: Path,
    messages: list[str],
    monkeypatch: pytest.MonkeyPatch,
    slots: dict[str, int],
) -> None:
    """A microbatch's or a draft lane's own workspace gets the size of what ran in it at start."""
    manager = with_workspace(monkeypatch, **slots)
    monkeypatch.setattr("mla_tune.vllm.plugin.splits.WAVES", 0)
    plugin(graph_table)
    engine = start(captures=(2, 8, 32))
    assert engine.builder._row_splits is None
    assert manager._current_workspaces[0].numel() == 64 * 8 * 16 * 513 * 4
    metadata = engine.builder.build_for_cudagraph_capture(engine.batch("2q1s128", longest=4096))
    assert metadata.max_seq_len == 4096
    said = [message for message in messages if "there is more than one workspace" in message]
    assert len(said) == 1


def test_no_tuned_decode_outgrows_vllms_own_reservation(
    plugin: Any, eager_table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draft lane's workspace is locked at 64 rows: 4 x 32 rows of vLLM's splits may not fit."""
    with_workspace(monkeypatch, num_lanes=2)
    plugin(eager_table)
    assert start().builder.build(0, start().batch("4q32s256")).num_decodes == 0


def test_the_workspace_of_033_is_reserved_through_its_function(
    plugin: Any, graph_table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.33 reserves in a module function, and in the impl while memory is profiled."""
    from vllm.v1.attention.backends.mla import triton_mla

    manager = with_workspace(monkeypatch)
    monkeypatch.setattr("mla_tune.vllm.plugin.splits.WAVES", 0)
    plugin(graph_table)
    engine = start(captures=(2, 8, 32))

    def vllms(*_: object) -> None:
        raise AssertionError("vLLM's own reservation was made")

    monkeypatch.setattr(triton_mla, "_reserve_attn_logits_workspace", vllms, raising=False)
    engine.builder._row_splits = None
    with engine.builder._own_reservation():
        triton_mla._reserve_attn_logits_workspace(engine.config, 64, 16, 512)
    assert engine.builder._row_splits == 64
    assert triton_mla._reserve_attn_logits_workspace is vllms

    manager._current_workspaces[0] = None
    monkeypatch.setattr(engine.layer.impl, "_vllm_config", engine.config, raising=False)
    engine.layer.impl.reserve_workspace()
    assert manager._current_workspaces[0].numel() == 64 * 16 * 513 * 4


def test_an_idle_rank_finds_what_to_reserve_once(
    plugin: Any, graph_table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.33's V1 asks at each layer of each step without metadata: 5 ms each time, for 61 layers."""
    from mla_tune.vllm.plugin import triton_mla

    manager = with_workspace(monkeypatch)
    monkeypatch.setattr("mla_tune.vllm.plugin.splits.WAVES", 0)
    plugin(graph_table)
    engine = start(captures=(2, 8, 32))
    impl, asked = engine.layer.impl, []
    monkeypatch.setattr(impl, "_vllm_config", engine.config, raising=False)

    def finding(*arguments: Any) -> Any:
        asked.append(arguments)
        return engine.deployment

    monkeypatch.setattr(triton_mla, "deployment_for", finding)
    for _ in range(3):
        manager._current_workspaces[0] = None
        impl.reserve_workspace()
        assert manager._current_workspaces[0].numel() == 64 * 16 * 513 * 4
    assert len(asked) == 1
    monkeypatch.setattr("vllm.v1.worker.workspace._manager", None)
    if vllm_version() >= "0.33":
        impl.reserve_workspace()  # and vLLM has nowhere to reserve
