"""Which path a step's requests take in the installed vLLM's builders."""

import os
from pathlib import Path
from typing import Any

import pytest

from mla_tune.plan.plan import Plan
from mla_tune.vllm.plugin.thresholds import Thresholds
from tabled_engine import WriteTable, cpu_header, entry

# Triton decides at its import whether it interprets, and vLLM imports it.
os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
pytest.importorskip("vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.usefixtures("a_gpus_worth_of_units")]

import torch  # noqa: E402
from vllm_on_cpu import (  # noqa: E402
    registry,
    start,
)


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
        "4q32s32",  # the entry's length, but nothing in the cache
        "3q32s33_q32s32",
    ],
)
def test_no_entry_vouches_for_a_decode_it_did_not_try(
    plugin: Any, write_table: WriteTable, spec: str
) -> None:
    """An entry answers for its whole bucket: FLASHMLA with fp8 would be wrong there."""
    plugin(
        write_table(
            cpu_header(mode="eager"),
            entry("4q32s256", Plan(reorder_batch_threshold=32)),
            entry("4q32s33", Plan(reorder_batch_threshold=32)),
        )
    )
    engine = start()
    batch = engine.batch(spec)
    assert engine.builder.step_policy.choices.eager(batch).outcome == "hit"
    metadata = engine.builder.build(0, batch)
    assert (metadata.num_decodes, metadata.num_prefills) == (0, 4)
    assert engine.deployment.counts.not_applied == 0
    assert engine.builder.build(0, engine.batch("4q32s33")).num_decodes == 4


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


def test_both_paths_give_the_same_result(plugin: Any, write_table: WriteTable) -> None:
    spec = "2q4s70"  # Triton's interpreter takes a second for 16 tokens
    plugin(write_table(cpu_header(mode="eager"), entry(spec, Plan(reorder_batch_threshold=4))))
    engine = start()
    decode = engine.builder.build(0, engine.batch(spec))
    assert decode.num_decodes == 2
    engine.builder.step_policy.thresholds = Thresholds(1)
    prefill = engine.builder.build(0, engine.batch(spec))
    assert prefill.num_prefills == 2
    torch.testing.assert_close(
        engine.forward(spec, decode),
        engine.forward(spec, prefill),
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
    choice = engine.deployment.lookups.steps.uniform(4, 32, 256)
    assert policy.threshold(engine.batch("4q32s256"), choice) == 40
