"""Engines as vLLM describes them, for tests."""

from dataclasses import replace
from typing import Any

from mla_tune.serving.engine import ServedDevice, ServedEngine
from mla_tune.shapes import MlaDimensions

H100 = ServedDevice("NVIDIA H100 80GB HBM3", "9.0", 132)
CPU = ServedDevice("A processor", None, 1)

ENGINE = ServedEngine(
    vllm="0.33.0",
    device=H100,
    model=MlaDimensions(16),
    kv_cache_dtype="auto",
    block_size=None,
    quantization="none",
    max_model_len=131072,
    max_num_seqs=1024,
    capture_sizes=(1, 2, 4, 8, 16),
    decode_graphs=True,
    draft_tokens=0,
    kv_cache_tokens=1_125_000,
    index_topk=None,
    backend="TRITON_MLA",
    context_parallel=1,
    num_gpus=8,
)


def engine(**changes: Any) -> ServedEngine:
    return replace(ENGINE, **changes)
