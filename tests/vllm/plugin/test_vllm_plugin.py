"""The plugin in the installed vLLM, on the CPU, with vLLM's own kernels interpreted."""

import gc
import importlib.metadata
import os
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.table.header import Device
from mla_tune.vllm.observe import calls_of
from mla_tune.vllm.plugin.replay import STEPS_BETWEEN_LOOKS
from mla_tune.vllm.plugin.thresholds import Thresholds
from tabled_engine import WriteTable, cpu_header, entry, vllm_version

# Triton decides at its import whether it interprets, and vLLM imports it.
os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
pytest.importorskip("vllm")
pytestmark = pytest.mark.vllm

import torch  # noqa: E402
from vllm_on_cpu import (  # noqa: E402
    FLASH_ATTN_MODULES,
    Engine,
    leave_out_flash_attention,
    start,
    with_workspace,
)


def registry() -> Any:
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    return AttentionBackendEnum


def load_plugins() -> None:
    """As each of vLLM's processes does, through the installed entry point."""
    import vllm.plugins

    vllm.plugins.plugins_loaded = False
    vllm.plugins.load_general_plugins()


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Any:
    def load(*tables: Path) -> None:
        monkeypatch.setenv("MLA_TUNE_TABLES", ":".join(map(str, tables)))
        load_plugins()

    return load


@pytest.fixture(autouse=True)
def a_gpus_worth_of_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as an H200 has, or two cores would cap every split count at four."""
    from vllm.platforms.cpu import CpuPlatform

    monkeypatch.setattr(CpuPlatform, "num_compute_units", classmethod(lambda *_: 132))


@pytest.fixture
def graph_table(write_table: WriteTable) -> Path:
    return write_table(
        cpu_header(),
        entry("2q1s{128,256}", Plan(num_kv_splits=4)),
        entry("8q1s128", UNTUNED),
        entry("32q1s128", Plan(num_kv_splits=2)),
    )


@pytest.fixture
def eager_table(write_table: WriteTable) -> Path:
    return write_table(
        cpu_header(mode="eager"),
        entry("2q1s128", Plan(num_kv_splits=2)),
        entry("4q32s256", Plan(reorder_batch_threshold=32)),
    )


def splits_reaching_the_kernel(engine: Engine, spec: str, metadata: Any) -> int:
    from vllm.v1.attention.backends.mla import triton_mla

    with calls_of(triton_mla, "decode_attention_fwd", "num_kv_splits") as seen:
        engine.forward(spec, metadata)
    return int(seen[0])


# Loading


def test_the_entry_point_is_installed() -> None:
    points = importlib.metadata.entry_points(group="vllm.general_plugins")
    assert "mla_tune.vllm.plugin:register" in {point.value for point in points}


def test_without_tables_the_registry_stays_vllms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLA_TUNE_TABLES", raising=False)
    load_plugins()
    assert not registry().TRITON_MLA.is_overridden()


def test_the_registry_resolves_to_our_subclasses(plugin: Any, graph_table: Path) -> None:
    vllms = registry().TRITON_MLA.get_class()
    plugin(graph_table)
    plugin(graph_table)  # again, as vLLM may
    ours = registry().TRITON_MLA.get_class()
    assert ours.__module__ == "mla_tune.vllm.plugin.triton_mla"
    assert issubclass(ours, vllms)
    assert ours.get_name() == "TRITON_MLA"
    assert issubclass(ours.get_builder_cls(), vllms.get_builder_cls())
    assert issubclass(ours.get_impl_cls(), vllms.get_impl_cls())
    assert not registry().FLASHMLA.is_overridden()


@pytest.mark.parametrize("name", ["TOKENSPEED_MLA", "FLASHMLA"])
def test_every_family_stands_on_the_installed_vllm(
    plugin: Any, write_table: WriteTable, name: str
) -> None:
    """Of the rest, FLASH_ATTN_MLA and CUTLASS_MLA import with stand-ins, FLASHINFER_MLA not."""
    plugin(write_table(cpu_header(name), entry("8q1s1k", UNTUNED)))
    ours = registry()[name].get_class()
    assert ours.__module__.startswith("mla_tune.vllm.plugin.")
    assert ours.get_name() == name
    assert ours.get_builder_cls().mla_tune_backend == name


def test_a_subclass_that_cannot_be_defined_leaves_vllms_own(
    plugin: Any, graph_table: Path, monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    plugin(graph_table)
    monkeypatch.setitem(sys.modules, "mla_tune.vllm.plugin.triton_mla", None)
    found = registry().TRITON_MLA.get_class()
    assert found.__module__ == "vllm.v1.attention.backends.mla.triton_mla"
    assert any(message.startswith("ERROR mla-tune: TRITON_MLA runs as") for message in messages)


def test_another_plugins_override_is_left_alone(
    plugin: Any, graph_table: Path, messages: list[str]
) -> None:
    from vllm.v1.attention.backends.registry import register_backend

    register_backend(registry().TRITON_MLA, "somewhere.else.Backend")
    plugin(graph_table)
    assert registry().TRITON_MLA.get_path() == "somewhere.else.Backend"
    assert any("already overridden" in message for message in messages)


def test_recording_needs_no_table_for_the_backend(
    plugin: Any, graph_table: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLA_TUNE_RECORD", str(tmp_path / "served.json"))
    plugin(graph_table)
    assert registry().FLASHMLA.is_overridden()


# Matching


def test_a_true_table_is_announced(plugin: Any, graph_table: Path, messages: list[str]) -> None:
    plugin(graph_table)
    engine = start(captures=(1, 2, 4, 8, 16, 32, 64))
    assert engine.deployment.lookups is not None
    assert f"INFO mla-tune: TRITON_MLA uses {graph_table} (3 entries, graph mode)" in messages
    assert "INFO mla-tune: TRITON_MLA: 3 of 7 decode graphs have an entry" in messages


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
    policy, name = engine.builder.step_policy, "eager" if where == "lookups" else where
    owner = {"lookups": engine.deployment.lookups, "eager": policy, "count": policy}.get(
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


# TRITON_MLA's splits


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
    plugin: Any, graph_table: Path, messages: list[str]
) -> None:
    plugin(graph_table)
    engine = start(captures=(2,))
    engine.builder.build_for_cudagraph_capture(engine.batch("2q1s128", longest=4096))
    engine.builder.build(0, engine.batch("2q1s1k"))
    assert engine.deployment.counts.beyond == 1
    assert any("KV lengths beyond the 256" in message for message in messages)


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


def test_a_count_that_vllms_formula_never_gives_is_left_out(
    plugin: Any, write_table: WriteTable
) -> None:
    plugin(write_table(cpu_header(mode="eager"), entry("2q1s128", Plan(num_kv_splits=6))))
    engine = start()
    assert engine.builder.build(0, engine.batch("2q1s128")).max_seq_len == 128


def test_a_count_that_vllm_never_takes_is_said_once(
    plugin: Any, write_table: WriteTable, messages: list[str]
) -> None:
    plugin(write_table(cpu_header(), entry("2q1s128", Plan(num_kv_splits=6))))
    for _ in range(2):
        engine = start(captures=(2,))
    metadata = engine.builder.build_for_cudagraph_capture(engine.batch("2q1s128", longest=4096))
    assert metadata.max_seq_len == 4096
    told = [message for message in messages if "never takes 6 splits" in message]
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


# The workspace


def test_the_workspace_has_room_for_the_table_and_no_more(
    plugin: Any, graph_table: Path, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
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


# The threshold


def test_a_uniform_step_gets_the_tabled_threshold(plugin: Any, eager_table: Path) -> None:
    plugin(eager_table)
    engine = start()
    metadata = engine.builder.build(0, engine.batch("4q32s256"))
    assert (metadata.num_decodes, metadata.num_prefills) == (4, 0)
    assert engine.deployment.counts.verified == 1
    # The builder itself keeps vLLM's, whose buffers are sized for it.
    assert engine.builder.reorder_batch_threshold == 1
    elsewhere = engine.builder.build(0, engine.batch("4q32s2k"))
    assert (elsewhere.num_decodes, elsewhere.num_prefills) == (0, 4)


@pytest.mark.parametrize(
    "spec",
    [
        "4q40s256",  # a length that no entry has
        "4q32s32",  # the entry's length, but nothing in the cache
        "3q32s40_q32s32",
    ],
)
def test_no_entry_vouches_for_a_decode_it_did_not_try(
    plugin: Any, write_table: WriteTable, spec: str
) -> None:
    """The lookup answers within a factor 1.5: FLASHMLA with fp8 would be wrong there."""
    plugin(
        write_table(
            cpu_header(mode="eager"),
            entry("4q32s256", Plan(reorder_batch_threshold=32)),
            entry("4q32s40", Plan(reorder_batch_threshold=32)),
        )
    )
    engine = start()
    batch = engine.batch(spec)
    assert engine.builder.step_policy.choices.eager(batch).outcome == "hit"
    metadata = engine.builder.build(0, batch)
    assert (metadata.num_decodes, metadata.num_prefills) == (0, 4)
    assert engine.deployment.counts.not_applied == 0
    assert engine.builder.build(0, engine.batch("4q32s40")).num_decodes == 4


def test_the_builders_threshold_is_vllms_between_any_two_builds(
    plugin: Any, eager_table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.model_executor.layers.attention import mla_attention

    plugin(eager_table)
    engine = start()
    seen = []

    def fail(*_: object, decode_threshold: int, **__: object) -> object:
        seen.append(decode_threshold)
        raise RuntimeError("no such luck")

    monkeypatch.setattr(mla_attention, "split_decodes_and_prefills", fail)
    with pytest.raises(RuntimeError):
        engine.builder.build(0, engine.batch("4q32s256"))
    assert seen == [32]
    assert engine.builder.reorder_batch_threshold == 1


def test_both_paths_give_the_same_result(plugin: Any, eager_table: Path) -> None:
    plugin(eager_table)
    engine = start()
    decode = engine.builder.build(0, engine.batch("4q32s256"))
    engine.builder.step_policy.thresholds = Thresholds(1)
    prefill = engine.builder.build(0, engine.batch("4q32s256"))
    assert prefill.num_prefills == 4
    torch.testing.assert_close(
        engine.forward("4q32s256", decode),
        engine.forward("4q32s256", prefill),
        rtol=5e-3,
        atol=5e-3,
    )


def test_a_builder_with_a_threshold_gets_the_best_single_one(
    plugin: Any, write_table: WriteTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As FLASHMLA and FLASH_ATTN_MLA, whose kernels need a GPU: vLLM's value is above 1."""
    slower = Plan(reorder_batch_threshold=64)
    extend = {"default_us": 20.0, "default_plan": slower}
    plugin(
        write_table(
            cpu_header(mode="eager"),
            entry("4q64s256", Plan(reorder_batch_threshold=16), **extend),
        )
    )
    builder_cls = registry().TRITON_MLA.get_class().get_builder_cls()
    monkeypatch.setattr(builder_cls, "reorder_batch_threshold", 64)
    engine = start()
    # Model runner V1 orders the batch by the attribute, on every rank alike.
    assert engine.builder.reorder_batch_threshold == 64
    mixed = engine.builder.build(0, engine.batch("q40s128_2q8s128"))
    assert (mixed.num_decodes, mixed.num_prefills) == (2, 1)
    assert engine.builder.reorder_batch_threshold == 64


def test_a_threshold_never_falls_below_speculation(
    plugin: Any, eager_table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin(eager_table)
    engine = start()
    policy = engine.builder.step_policy
    monkeypatch.setattr(policy.thresholds, "least", 40)
    choice = engine.deployment.lookups.eager(4, 32, 256)
    assert policy.threshold(engine.batch("4q32s256"), choice) == 40


# FLASH_ATTN_MLA's cap


@pytest.fixture
def flash_attn(monkeypatch: pytest.MonkeyPatch) -> Any:
    """vLLM's own FLASH_ATTN_MLA builder, with its two CUDA functions left out.

    Returns the caps that its scheduler is called with.
    """
    yield leave_out_flash_attention(monkeypatch)
    for name in FLASH_ATTN_MODULES:
        sys.modules.pop(name, None)


def test_the_cap_of_a_graph_is_the_same_at_every_replay(
    plugin: Any, flash_attn: list[int], write_table: WriteTable
) -> None:
    plugin(
        write_table(
            cpu_header("FLASH_ATTN_MLA"),
            entry("2q1s{128,256}", Plan(num_kv_splits=8)),
            entry("8q1s128", Plan(num_kv_splits=0)),
        )
    )
    engine = start("FLASH_ATTN_MLA", captures=(2, 4, 8), max_cudagraph_capture_size=8)
    for spec in ("8q1s128", "4q1s128", "2q1s128"):
        engine.builder.build_for_cudagraph_capture(engine.batch(spec, longest=4096))
    # A graph without a bound would outgrow the buffers it was captured with: vLLM's 32 stays.
    assert flash_attn == [32, 32, 8]
    flash_attn.clear()
    metadata = engine.builder.build(0, engine.batch("2q1s200"))
    assert flash_attn == [8]
    assert metadata.decode.max_num_splits == 8
    assert engine.builder.build(0, engine.batch("4q1s200")).decode.max_num_splits == 32


def test_the_operators_cap_stays(
    plugin: Any,
    flash_attn: list[int],
    write_table: WriteTable,
    monkeypatch: pytest.MonkeyPatch,
    messages: list[str],
) -> None:
    from vllm.config import AttentionConfig

    name = "flash_attn_max_num_splits_for_cuda_graph"
    build = AttentionConfig.__post_init__ if hasattr(AttentionConfig, "__post_init__") else None

    def set_by_hand(self: Any) -> None:
        if build is not None:
            build(self)
        setattr(self, name, 4)

    monkeypatch.setattr(AttentionConfig, "__post_init__", set_by_hand, raising=False)
    plugin(write_table(cpu_header("FLASH_ATTN_MLA"), entry("2q1s128", Plan(num_kv_splits=8))))
    engine = start("FLASH_ATTN_MLA", captures=(2,), max_cudagraph_capture_size=2)
    engine.builder.build_for_cudagraph_capture(engine.batch("2q1s128", longest=4096))
    assert engine.builder.build(0, engine.batch("2q1s128")).decode.max_num_splits == 4
    assert flash_attn == [4, 4]
    assert any(f"keeps the cap of --attention-config.{name}=4" in line for line in messages)


@pytest.mark.parametrize("where", ["eager", "threshold"])
def test_a_failure_leaves_no_cap_that_the_schedule_does_not_have(
    plugin: Any,
    flash_attn: list[int],
    write_table: WriteTable,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    """The kernel writes past its buffers where the schedule has more splits than they do."""
    capped = entry("2q4s128", Plan(num_kv_splits=8, reorder_batch_threshold=512))
    plugin(write_table(cpu_header("FLASH_ATTN_MLA", mode="eager"), capped))
    engine = start("FLASH_ATTN_MLA", max_cudagraph_capture_size=8)
    assert engine.builder.build(0, engine.batch("2q4s128")).decode.max_num_splits == 8

    def fail(*_: object) -> object:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(engine.builder.step_policy, where, fail)
    flash_attn.clear()
    metadata = engine.builder.build(0, engine.batch("2q4s128"))
    assert flash_attn == [metadata.decode.max_num_splits]
    assert metadata.decode.max_num_splits != 8


def test_builders_that_vllm_drops_are_not_kept(
    plugin: Any, flash_attn: list[int], write_table: WriteTable
) -> None:
    """It makes some to profile memory with, each with a workspace, and drops them."""
    del flash_attn
    plugin(write_table(cpu_header("FLASH_ATTN_MLA"), entry("2q1s128", Plan(num_kv_splits=8))))
    engine = start("FLASH_ATTN_MLA", captures=(2, 4), max_cudagraph_capture_size=4)
    for spec in ("2q1s128", "4q1s128"):
        engine.builder.build_for_cudagraph_capture(engine.batch(spec, longest=4096))
        engine.builder.build(0, engine.batch(spec))
    counts, dropped = engine.deployment.counts, weakref.ref(engine.builder)
    engine.builder = None
    # Not by reference counts: vLLM's own builders have cycles.
    gc.collect()
    assert dropped() is None
    assert counts.outcomes == {"hit": 1, "miss": 1}


def test_flash_attn_gets_the_best_single_threshold(
    plugin: Any, flash_attn: list[int], write_table: WriteTable
) -> None:
    del flash_attn
    plugin(
        write_table(
            cpu_header("FLASH_ATTN_MLA", mode="eager"),
            entry("4q64s256", Plan(reorder_batch_threshold=32), default_us=20.0),
        )
    )
    engine = start("FLASH_ATTN_MLA")
    assert engine.builder.reorder_batch_threshold == 512
    mixed = engine.builder.build(0, engine.batch("q16s256_2q40s256"))
    assert (mixed.num_decodes, mixed.num_prefills) == (1, 2)
    # In V1's order of arrival: the last one was faster as a decode, and would not be one.
    arrived = engine.batch("2q40s256_q16s256")
    assert engine.builder.build(0, _in_order(arrived, (40, 16, 40))).num_prefills == 0
    uniform = engine.builder.build(0, engine.batch("4q64s256"))
    assert (uniform.num_decodes, uniform.num_prefills) == (0, 4)
    # A miss is vLLM's own threshold of 512.
    missed = engine.builder.build(0, engine.batch("4q64s2k"))
    assert (missed.num_decodes, missed.num_prefills) == (4, 0)
    assert engine.builder.reorder_batch_threshold == 512


def _in_order(batch: Any, query_lens: tuple[int, ...]) -> Any:
    """``batch`` with its requests in another order, as far as a split looks."""
    start = torch.tensor([0, *query_lens], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    batch.query_start_loc = batch.query_start_loc_cpu = start
    return batch


# Recording


def test_served_steps_are_recorded_by_part(
    plugin: Any, eager_table: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mla_tune.traffic.shapes import shapes_from_traffic

    record = tmp_path / "record" / "served.json"
    record.parent.mkdir()
    monkeypatch.setenv("MLA_TUNE_RECORD", str(record))
    plugin(eager_table)
    engine = start()
    for spec in ("2q1s128", "2q1s128", "q100s300_2q1s128", "8q1s1k"):
        engine.builder.build(0, engine.batch(spec))
    engine.deployment.recorder.close()
    text = shapes_from_traffic(record)
    assert "{spec: 2q1s128, weight: 3}" in text
    assert "{spec: q128s256, weight: 1}" in text
    assert text.index("8q1s1k") < text.index("2q1s128")


def test_replayed_steps_are_recorded_as_such(
    plugin: Any, graph_table: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mla_tune.traffic.histogram_file import HistogramFile, histogram_files

    record = tmp_path / "served.json"
    monkeypatch.setenv("MLA_TUNE_RECORD", str(record))
    plugin(graph_table)
    engine = start(captures=(2, 4))
    for spec in ("4q1s128", "2q1s128"):
        engine.builder.build_for_cudagraph_capture(engine.batch(spec, longest=4096))
    for spec in ("2q1s128", "2q1s128", "4q1s256"):
        engine.builder.build(0, engine.batch(spec))
    engine.deployment.recorder.close()
    (file,) = histogram_files(record)
    steps = HistogramFile.load(file).steps
    assert [(step.mode, step.outcome, step.batch, step.count) for step in steps] == [
        ("graph", "hit", 2, 2),
        ("graph", "miss", 4, 1),
    ]
