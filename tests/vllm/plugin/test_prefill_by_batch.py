"""Prefill backends chosen batch by batch, in vLLM's own builder and layer on the CPU."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
pytest.importorskip("vllm")
pytestmark = pytest.mark.vllm

import torch  # noqa: E402
from vllm_on_cpu import Engine, start, with_workspace  # noqa: E402

from mla_tune.errors import UnavailableError  # noqa: E402
from mla_tune.plan.plan import UNTUNED, Plan  # noqa: E402
from mla_tune.vllm import prefill as vllm_prefill  # noqa: E402
from mla_tune.vllm.plugin.choice import Choice  # noqa: E402
from tabled_engine import WriteTable, cpu_header, entry  # noqa: E402

NEEDED_BYTES = 1 << 20


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand-ins that do what vLLM's CPU prefill does, under the names of those for a GPU.

    Returns the names of those that have run.
    """
    from vllm.v1.attention.backends.mla.prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend

    from mla_tune.vllm import workspace as vllm_workspace

    ran: list[str] = []

    def instance(cls: Any, version: int | None, like: Any, vllm_config: Any) -> Any:
        del version

        class Standin(CPUSDPAMLAPrefillBackend):  # type: ignore[misc]
            get_name = staticmethod(lambda: cls)

            def run_prefill_new_tokens(self, *args: Any, **kwargs: Any) -> Any:
                ran.append(cls)
                return super().run_prefill_new_tokens(*args, **kwargs)

        manager = vllm_workspace.manager()
        if cls == "TRTLLM_RAGGED" and manager is not None:
            manager.get_simultaneous(((NEEDED_BYTES,), torch.uint8))
        sizes = ("num_heads", "scale", "kv_lora_rank")
        dims = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        return Standin(
            **{name: getattr(like, name) for name in sizes + dims}, vllm_config=vllm_config
        )

    def accepted(member: str, vllm_config: Any) -> str:
        del vllm_config
        if member == "FLASH_ATTN":
            raise UnavailableError("no FlashAttention on a CPU")
        return member

    monkeypatch.setattr(vllm_prefill, "_accepted_class", accepted)
    monkeypatch.setattr(vllm_prefill, "_instance", instance)
    return ran


@pytest.fixture
def table(write_table: WriteTable, monkeypatch: pytest.MonkeyPatch) -> Path:
    from mla_tune.vllm.plugin import register

    path = write_table(
        cpu_header(mode="eager"),
        entry("2q40", Plan(prefill_backend="trtllm")),
        entry("2q8s300", Plan(prefill_backend="tokenspeed")),
        entry("2q64s2k", UNTUNED),
    )
    monkeypatch.setenv("MLA_TUNE_TABLES", str(path))
    register()
    return path


def prefill_of(engine: Engine, spec: str) -> str:
    metadata = engine.builder.build(0, engine.batch(spec))
    return str(metadata.prefill.prefill_backend.get_name())


@pytest.mark.usefixtures("table")
def test_each_batch_is_built_for_what_its_entry_names(made: list[str]) -> None:
    engine = start()
    vllms = engine.builder._prefill_backend
    own = vllms.get_name()
    expected = [("2q40", "TRTLLM_RAGGED"), ("2q64s2k", own), ("2q8s300", "TOKENSPEED_MLA")]
    for spec, name in expected:
        assert prefill_of(engine, spec) == name
        # Whatever builds next on this builder finds vLLM's own.
        assert engine.builder._prefill_backend is vllms
    metadata = engine.builder.build(0, engine.batch("2q40"))
    tuned = engine.forward("2q40", metadata)
    assert made == ["TRTLLM_RAGGED"]
    engine.builder.step_policy.prefills = None
    own_way = engine.forward("2q40", engine.builder.build(0, engine.batch("2q40")))
    torch.testing.assert_close(tuned, own_way)


@pytest.mark.usefixtures("table", "made")
def test_a_batch_on_a_replays_key_is_not_built_for_the_choice_of_another() -> None:
    """Requests and longest query of a graph do not tell whether a step has prefills."""
    engine = start()
    own = engine.builder._prefill_backend.get_name()
    assert prefill_of(engine, "2q40") == "TRTLLM_RAGGED"
    from mla_tune.vllm.plugin import builder

    batch = engine.batch("2q40")
    tally = engine.deployment.counts.tally("hit")
    replay = builder.Replay.of(Choice("2q40", "hit"), (), (), 1 << 30, tally)
    engine.builder._replays[builder._key(batch)] = replay
    assert prefill_of(engine, "2q40") == own


@pytest.mark.usefixtures("table", "made")
def test_vllm_asks_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.33 aligns the chunks of a context if TRTLLM_RAGGED's CuTe kernel is going to read them."""
    import vllm.model_executor.layers.attention.mla_attention as mla_attention

    build = mla_attention.build_mla_chunked_context_metadata
    asked: list[bool] = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs.get("align_indptr", False))
        return build(*args, **kwargs)

    monkeypatch.setattr(mla_attention, "build_mla_chunked_context_metadata", watched)
    engine = start()
    config = engine.config.attention_config
    if not hasattr(config, "trtllm_ragged_backend"):
        pytest.skip("this release does not align them")
    monkeypatch.setattr(config, "trtllm_ragged_backend", "cute-dsl")
    for spec in ("2q40", "2q64s2k", "2q8s300"):
        engine.builder.build(0, engine.batch(spec))
    assert asked == [True, False, False]


@pytest.mark.usefixtures("table", "made")
def test_workspace_is_taken_while_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    manager = with_workspace(monkeypatch)
    monkeypatch.setattr("mla_tune.vllm.plugin.triton_mla.reserve", lambda *_: 1)
    engine = start()
    assert manager._current_workspaces[0].numel() == NEEDED_BYTES
    assert prefill_of(engine, "2q40") == "TRTLLM_RAGGED"
    assert not [message for message in messages if "left out" in message]


@pytest.mark.usefixtures("table", "made")
def test_one_that_would_grow_the_workspace_later_is_left_out(
    monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    manager = with_workspace(monkeypatch)
    monkeypatch.setattr("mla_tune.vllm.plugin.triton_mla.reserve", lambda *_: 1)
    monkeypatch.setattr("mla_tune.vllm.plugin.at_load.reserve_prefill", lambda *_: 0)
    engine = start()
    own = engine.builder._prefill_backend.get_name()
    assert manager._current_workspaces == [None]
    assert not manager.is_locked()
    assert prefill_of(engine, "2q40") == own
    assert prefill_of(engine, "2q8s300") == "TOKENSPEED_MLA"
    assert any(
        "trtllm is left out: AssertionError: Workspace is locked" in message for message in messages
    )


@pytest.mark.usefixtures("table", "made")
def test_with_several_workspaces_none_that_needs_one_is_used(
    monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    from vllm.platforms.cpu import CpuPlatform

    monkeypatch.setattr(CpuPlatform, "num_compute_units", classmethod(lambda *_: 132))
    manager = with_workspace(monkeypatch, num_ubatches=2)
    engine = start()
    # vLLM's own reservation for its splits, and nothing else: 64 requests x 8.
    first, second = manager._current_workspaces
    assert (first.numel(), second) == (64 * 8 * 16 * 513 * 4, None)
    assert prefill_of(engine, "2q40") != "TRTLLM_RAGGED"
    assert prefill_of(engine, "2q8s300") == "TOKENSPEED_MLA"
    assert any("trtllm is left out" in message for message in messages)


@pytest.mark.usefixtures("made")
def test_one_that_was_never_timed_whole_is_left_out(
    write_table: WriteTable, monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    """A table of an earlier version of this project may name FLASHINFER."""
    from mla_tune.vllm.plugin import register

    path = write_table(cpu_header(mode="eager"), entry("2q40", Plan(prefill_backend="flashinfer")))
    monkeypatch.setenv("MLA_TUNE_TABLES", str(path))
    register()
    engine = start()
    assert prefill_of(engine, "2q40") == engine.builder._prefill_backend.get_name()
    assert any("flashinfer is left out: it is not chosen by batch" in text for text in messages)


@pytest.mark.usefixtures("table", "made")
def test_what_the_operator_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from mla_tune.vllm.plugin.prefill import PrefillByBatch

    engine = start()
    monkeypatch.setattr(engine.config.attention_config, "mla_prefill_backend", "FLASH_ATTN")
    assert not PrefillByBatch(engine.builder, ["trtllm"])._others


@pytest.mark.usefixtures("table", "made")
def test_a_promise_of_vllms_own_is_kept(
    monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    """The layer asks vLLM's own whether it writes quantised output, and tells whoever runs."""
    from vllm.v1.attention.backends.mla.prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend

    from mla_tune.vllm.plugin.prefill import PrefillByBatch

    engine = start()
    own = engine.builder._prefill_backend
    monkeypatch.setattr(own, "supports_quant_output", lambda _: True, raising=False)
    passes = SimpleNamespace(fuse_attn_quant=True)
    monkeypatch.setattr(engine.config.compilation_config, "pass_config", passes)
    assert not PrefillByBatch(engine.builder, ["trtllm"])._others
    assert any("with fuse_attn_quant vLLM's own writes k" in message for message in messages)
    monkeypatch.setattr(CPUSDPAMLAPrefillBackend, "supports_quant_output", lambda *_: True)
    assert PrefillByBatch(engine.builder, ["trtllm"])._others


@pytest.mark.usefixtures("table", "made")
def test_after_a_failure_in_our_code_it_is_vllms_own(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = start()
    vllms = engine.builder._prefill_backend

    def fail(_: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(engine.builder.step_policy, "eager", fail)
    assert prefill_of(engine, "2q40") == vllms.get_name()
    assert prefill_of(engine, "2q8s300") == vllms.get_name()
    assert engine.builder._prefill_backend is vllms
