"""What runs once while an engine starts, so that no step waits for Triton."""

import os
from typing import Any

import pytest

from mla_tune.plan.plan import Plan
from tabled_engine import WriteTable, cpu_header, entry

# Triton decides at its import whether it interprets, and vLLM imports it.
os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
pytest.importorskip("vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.usefixtures("a_gpus_worth_of_units")]

from vllm_on_cpu import start  # noqa: E402

from mla_tune.vllm.observe import calls_of  # noqa: E402
from mla_tune.vllm.plugin import compiled_ahead  # noqa: E402
from mla_tune.vllm.triton_launch import TunedKernel  # noqa: E402

LAUNCH = Plan(block_n=64, num_warps=8, num_stages=1)


def test_each_launch_and_count_of_graphs_and_eager_steps_is_run_once(
    plugin: Any, write_table: WriteTable, messages: list[str]
) -> None:
    from vllm.v1.attention.backends.mla import triton_mla

    plugin(
        write_table(
            cpu_header(),
            entry("2q1s70", LAUNCH.having(num_kv_splits=2)),
            entry("4q1s70", LAUNCH.having(num_kv_splits=2)),
            entry("8q1s70", LAUNCH.having(num_kv_splits=3)),
            entry("16q1s70", Plan(num_kv_splits=4)),
            entry("32q1s70", LAUNCH.having(num_kv_splits=16)),
        ),
        write_table(
            cpu_header(mode="eager"),
            entry("2q1s70", LAUNCH.having(num_kv_splits=2)),
            entry("4q1s70", Plan(block_n=16)),
        ),
    )
    kernel = TunedKernel.of_vllm()
    assert kernel is not None
    with (
        kernel.observed() as launches,
        calls_of(triton_mla, "decode_attention_fwd", "num_kv_splits") as splits,
    ):
        # 32 requests are not captured.
        start(captures=(2, 4, 8, 16))
    run = [(count, launch["block_n"]) for count, launch in zip(splits, launches, strict=True)]
    # The test's engine makes a builder before it has captures.
    assert set(run) == {(2, 64), (3, 64), (8, 16)}
    assert any("INFO mla-tune: TRITON_MLA: 3 launches compiled in" in line for line in messages)


def test_without_launches_nothing_is_run(plugin: Any, graph_table: Any) -> None:
    plugin(graph_table)
    kernel = TunedKernel.of_vllm()
    assert kernel is not None
    with kernel.observed() as launches:
        start(captures=(2, 8))
    assert launches == []


def test_an_engine_that_cannot_run_them_yet_is_warned_of_the_first_steps(
    plugin: Any, write_table: WriteTable, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("Workspace is locked")

    monkeypatch.setattr(compiled_ahead, "_run_once", fail)
    plugin(write_table(cpu_header(), entry("2q1s70", LAUNCH.having(num_kv_splits=2))))
    engine = start(captures=(2,))
    told = [line for line in messages if "compiled at their first step" in line]
    assert len(told) == 1
    assert "Workspace is locked" in told[0]
    metadata = engine.builder.build_for_cudagraph_capture(engine.batch("2q1s70", longest=4096))
    assert metadata.mla_tune_launch.launch == LAUNCH
