"""FLASH_ATTN_MLA's cap in the installed vLLM's builder, without its CUDA functions."""

import gc
import os
import weakref
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
    start,
)


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
