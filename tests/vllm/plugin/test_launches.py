"""TRITON_MLA's launches in the installed vLLM, with its own kernels interpreted."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from mla_tune.plan.plan import Plan
from tabled_engine import WriteTable, cpu_header, entry

# Triton decides at its import whether it interprets, and vLLM imports it.
os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
pytest.importorskip("vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.usefixtures("a_gpus_worth_of_units")]

import torch  # noqa: E402
from vllm_on_cpu import Engine, splits_reaching_the_kernel, start  # noqa: E402

from mla_tune.vllm.triton_launch import VLLM_LAUNCH, TunedKernel  # noqa: E402

LAUNCH = Plan(block_n=64, block_h=32, num_warps=8, num_stages=1)
SPEC = "2q1s70"
WHOLE = LAUNCH.having(num_kv_splits=2)


class TritonError(Exception):
    """By the name of what Triton's own errors derive from."""


def kernel() -> TunedKernel:
    found = TunedKernel.of_vllm()
    assert found is not None
    return found


def launched(engine: Engine, metadata: Any, spec: str = SPEC) -> tuple[torch.Tensor, Plan]:
    """The output of a step, and the constants of its launch."""
    with kernel().observed() as seen:
        output = engine.forward(spec, metadata)
    (launch,) = seen
    return output, launch


def captured(engine: Engine, spec: str = SPEC) -> Any:
    return engine.builder.build_for_cudagraph_capture(engine.batch(spec, longest=4096))


@pytest.fixture
def table(plugin: Any, write_table: WriteTable) -> Callable[..., None]:
    def load(plan: Plan, mode: str = "graph") -> None:
        plugin(write_table(cpu_header(mode=mode), entry(SPEC, plan)))

    return load


@pytest.mark.parametrize("plan", [WHOLE, LAUNCH, LAUNCH.without("block_h")])
def test_a_captured_launch_has_the_plan_s_constants_and_computes_what_vllms_does(
    table: Callable[..., None], messages: list[str], plan: Plan
) -> None:
    table(plan)
    engine = start(captures=(2,))
    metadata = captured(engine)
    tuned, launch = launched(engine, metadata)
    assert launch == LAUNCH.having(block_h=plan.get("block_h", 16))
    assert splits_reaching_the_kernel(engine, SPEC, metadata) == plan.get("num_kv_splits", 8)
    assert engine.deployment.counts.verified == 1
    told = [line for line in messages if "reached the kernel for 2q1" in line]
    assert len(told) == 1
    assert "block_n=64" in told[0]

    # Another step, which no plan is for, right after it.
    other = engine.builder.build(0, engine.batch("4q1s30"))
    assert launched(engine, other, "4q1s30")[1] == VLLM_LAUNCH
    del metadata.mla_tune_launch
    own, launch = launched(engine, metadata)
    assert launch == VLLM_LAUNCH
    torch.testing.assert_close(tuned, own, rtol=2e-3, atol=2e-3)


def test_an_eager_step_has_its_own_launch(table: Callable[..., None]) -> None:
    table(WHOLE, "eager")
    engine = start()
    metadata = engine.builder.build(0, engine.batch(SPEC))
    for _ in range(2):
        assert launched(engine, metadata)[1] == LAUNCH
    assert engine.deployment.counts.verified == 1
    longer = engine.builder.build(0, engine.batch("2q1s300"))
    assert launched(engine, longer, "2q1s300")[1] == VLLM_LAUNCH


def test_a_step_that_raises_leaves_vllms_launch(table: Callable[..., None]) -> None:
    table(WHOLE)
    engine = start(captures=(2,))
    metadata = captured(engine)
    decode, metadata.decode = metadata.decode, None
    with pytest.raises(AssertionError):
        engine.forward(SPEC, metadata)
    metadata.decode = decode
    del metadata.mla_tune_launch
    assert launched(engine, metadata)[1] == VLLM_LAUNCH


def test_a_kernel_that_ignores_the_constants_is_found(
    table: Callable[..., None], messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table(WHOLE)
    engine = start(captures=(2,))
    monkeypatch.setattr(TunedKernel, "__getitem__", lambda self, grid: self.kernel[grid])
    assert launched(engine, captured(engine))[1] == VLLM_LAUNCH
    counts = engine.deployment.counts
    assert (counts.verified, counts.not_applied) == (0, 1)
    told = "the table says block_n=64 block_h=32 num_warps=8 num_stages=1 for 2q1"
    assert any(f"{told}, but the kernel got 32, 16, 4, 2" in line for line in messages)


def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernel refuse any tile of 64 tokens, as a GPU with too little shared memory does."""

    class Refusal(TritonError):
        pass

    inner = kernel().kernel

    def run(grid: Any) -> Any:
        def launch(*args: Any, **kwargs: Any) -> Any:
            if kwargs["BLOCK_N"] == 64:
                raise Refusal("out of resource: shared memory, Required: 186368")
            return inner[grid](*args, **kwargs)

        return launch

    class Refusing:
        arg_names = inner.arg_names

        def __getitem__(self, grid: Any) -> Any:
            return run(grid)

    monkeypatch.setattr(kernel(), "kernel", Refusing())


@pytest.mark.parametrize("mode", ["graph", "eager"])
def test_a_launch_that_the_gpu_refuses_is_left_out_before_anything_is_captured(
    table: Callable[..., None], messages: list[str], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    refusing(monkeypatch)
    table(WHOLE, mode)
    engine = start(captures=(2,) if mode == "graph" else ())
    metadata = captured(engine) if mode == "graph" else engine.builder.build(0, engine.batch(SPEC))
    assert not hasattr(metadata, "mla_tune_launch")
    # The whole plan: what it would be with vLLM's launch was not measured.
    assert metadata.max_seq_len == (4096 if mode == "graph" else 70)
    assert launched(engine, metadata)[1] == VLLM_LAUNCH
    told = [line for line in messages if "does not run here" in line]
    assert len(told) == 1
    assert "Required: 186368" in told[0]
    assert engine.deployment.counts.not_applied == 0


def test_a_launch_that_is_refused_later_runs_as_vllms(
    table: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the compiler is killed for memory: no step may fail for a table."""
    table(WHOLE)
    engine = start(captures=(2,))
    metadata = captured(engine)
    refusing(monkeypatch)
    assert bool(engine.forward(SPEC, metadata).isfinite().all())
    assert metadata.mla_tune_launch.is_refused
    # The next builder of the process leaves it out.
    again = start(captures=(2,))
    assert again.deployment is engine.deployment
    assert not hasattr(captured(again), "mla_tune_launch")


def test_microbatches_keep_vllms_launch(
    table: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mla_tune.vllm.plugin import triton_mla

    monkeypatch.setattr(triton_mla, "keeps_vllms_splits", lambda: True)
    table(WHOLE)
    engine = start(captures=(2,))
    assert launched(engine, captured(engine))[1] == VLLM_LAUNCH


def test_a_release_without_the_constants_misses_with_one_line(
    plugin: Any, write_table: WriteTable, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mla_tune.vllm.plugin import triton_mla

    builder = triton_mla.TunedTritonMLAMetadataBuilder
    knobs = builder.mla_tune_knobs - set(LAUNCH)
    monkeypatch.setattr(builder, "mla_tune_knobs", knobs)
    plugin(write_table(cpu_header(), entry(SPEC, WHOLE), entry("4q1s70", WHOLE)))
    engine = start(captures=(2, 4))
    assert launched(engine, captured(engine))[1] == VLLM_LAUNCH
    told = [line for line in messages if "cannot set" in line]
    assert len(told) == 1
    assert "tables set block_n, block_h, num_warps, num_stages" in told[0]


@pytest.mark.parametrize("launch", [Plan(), LAUNCH, Plan(block_n=128), Plan(block_n=16)], ids=str)
def test_a_launch_reads_an_fp8_cache_as_vllms_does(launch: Plan) -> None:
    """20 heads, no multiple of a block's, over pages of 16 tokens that lie out of order."""
    from vllm.v1.attention.ops.triton_decode_attention import decode_attention_fwd

    heads, rank, splits, kv_lens = 20, 256, 2, (70, 21)
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, heads, rank + 64, generator=generator).half()
    cache = torch.randn(8, 16, 1, rank + 64, generator=generator).to(torch.float8_e4m3fn)
    table = torch.tensor([[1, 3, 5, 7, 2], [4, 6, 0, 0, 0]], dtype=torch.int32)
    output, lse = torch.zeros(2, heads, rank).half(), torch.zeros(2, heads).half()
    partial_results = torch.full((2, heads, splits, rank + 1), float("nan"))
    scale = torch.tensor(0.5)
    with kernel().launching(launch), kernel().observed() as seen:
        decode_attention_fwd(
            *(query, cache, cache[..., :rank], output, lse, table),
            *(torch.tensor(kv_lens, dtype=torch.int32), partial_results, splits, 0.1, 16),
            k_scale=scale,
            v_scale=scale,
            is_mla=True,
        )
    assert seen == [launch.over(VLLM_LAUNCH)]
    for row, kv_len in enumerate(kv_lens):
        latents = 0.5 * cache[table[row].long()].view(-1, rank + 64)[:kv_len].double()
        weights = torch.softmax(0.1 * query[row].double() @ latents.T, dim=-1)
        expected = weights @ latents[:, :rank]
        assert float((output[row].double() - expected).norm() / expected.norm()) < 2e-3
