"""Quantized weights in vLLM's own linear layer and attention layer, on the CPU."""

import dataclasses
import os
from typing import Any

import pytest

# Triton decides at its import whether it interprets, and vLLM imports it.
os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
pytest.importorskip("vllm")
pytestmark = pytest.mark.vllm

import torch  # noqa: E402
from vllm_on_cpu import MAX_MODEL_LEN, MODEL  # noqa: E402

from mla_tune.errors import UnavailableError  # noqa: E402
from mla_tune.measuring.correctness import OutputCheck  # noqa: E402
from mla_tune.plan.plan import Plan  # noqa: E402
from mla_tune.session import Setup  # noqa: E402
from mla_tune.shapes import BatchShape  # noqa: E402
from mla_tune.vllm.backends.triton_mla import BACKEND  # noqa: E402
from mla_tune.vllm.session.parts import build_parts  # noqa: E402
from mla_tune.vllm.session.session import VllmSession  # noqa: E402
from mla_tune.vllm.session.weights import _block_scales  # noqa: E402

SETUP = Setup(
    backend="TRITON_MLA",
    model=MODEL,
    max_model_len=MAX_MODEL_LEN,
    max_num_requests=4,
    max_num_query_tokens=64,
)


def scaled_fp8_quant(value: torch.Tensor, scale: Any = None, **_: Any) -> tuple[Any, Any]:
    """VLLM's CUDA kernel, in torch: one scale for all of ``value``."""
    e4m3 = torch.float8_e4m3fn
    if scale is None:
        scale = (value.abs().max().float() / torch.finfo(e4m3).max).view(1)
    return (value.float() / scale).clamp(-448, 448).to(e4m3), scale


@pytest.fixture
def fp8_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    import vllm._custom_ops as ops

    monkeypatch.setattr(ops, "scaled_fp8_quant", scaled_fp8_quant)


@pytest.mark.usefixtures("fp8_kernels")
def test_fp8_weights_are_those_of_a_checkpoint() -> None:
    parts = build_parts(dataclasses.replace(SETUP, quantization="fp8_per_tensor"), BACKEND)
    plain = build_parts(SETUP, BACKEND)
    assert parts.layer.kv_b_proj.weight.dtype == torch.float8_e4m3fn
    # What is absorbed is what the checkpoint says, and not what was rounded into it.
    error = (parts.weight - plain.weight.float()).norm() / plain.weight.float().norm()
    assert 0.01 < error < 0.04
    keys = parts.weight.view(MODEL.num_q_heads, -1, MODEL.kv_lora_rank)[:, : MODEL.qk_nope_head_dim]
    assert torch.equal(parts.layer.W_UK_T.float(), keys)


@pytest.mark.usefixtures("fp8_kernels")
def test_the_rounding_of_fp8_weights_is_in_the_reference() -> None:
    """Both paths of one shape, each against float64: only one of them runs ``kv_b_proj``."""
    session = VllmSession(
        *(dataclasses.replace(SETUP, quantization="fp8_per_tensor"),),
        build_parts(dataclasses.replace(SETUP, quantization="fp8_per_tensor"), BACKEND),
    )
    shape = BatchShape.parse("q4s40")
    session.load([shape])
    decode, prefill = (Plan(reorder_batch_threshold=threshold) for threshold in (4, 1))
    assert session.projected_from(shape, decode) == 4
    assert session.projected_from(shape, prefill) == 0
    exact = session.reference(shape)
    rounded = session.reference(shape, 0, 0)
    difference = (exact.values - rounded.values).norm() / exact.values.norm()
    assert difference > 1e-3
    check = OutputCheck(session, [shape], decode)
    check.verify(decode)


def test_a_quantization_that_cannot_be_built_here_is_named() -> None:
    with pytest.raises(UnavailableError, match="kv_b_proj cannot be quantized as fp8_per_block"):
        build_parts(dataclasses.replace(SETUP, quantization="fp8_per_block"), BACKEND)


def test_blocks_that_vllm_does_not_make_are_not_measured() -> None:
    # Its CPU platform has blocks of 16 whatever it is told.
    with pytest.raises(UnavailableError, match="blocks of 16 tokens here, where 32 were asked"):
        build_parts(dataclasses.replace(SETUP, block_size=32), BACKEND)
    with pytest.raises(UnavailableError, match="does not take blocks of 24 tokens"):
        build_parts(dataclasses.replace(SETUP, block_size=24), BACKEND)


def test_the_largest_capture_is_the_setups() -> None:
    from mla_tune.vllm.session.config import _capture_as_production

    config = type("Config", (), {})()
    config.compilation_config = type("Compilation", (), {"max_cudagraph_capture_size": 8})()
    _capture_as_production(config, 256)
    assert config.compilation_config.max_cudagraph_capture_size == 256


def test_each_block_has_a_scale_of_its_own() -> None:
    weight = torch.ones(300, 128)
    weight[256:] = 4.48
    largest = _block_scales(weight, (128, 128)) * 448
    assert torch.allclose(largest, torch.tensor([[1.0], [1.0], [4.48]]))
