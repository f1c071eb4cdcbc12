"""Tables, and the engines that they are true for: one on this machine's CPU, one on an H200."""

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mla_tune.environment import KERNEL_PACKAGES, installed_versions, probe
from mla_tune.plan.plan import Plan
from mla_tune.shapes import MlaDimensions
from mla_tune.table import Entry, Header
from mla_tune.table.matching import EngineFacts

MODEL = MlaDimensions(num_q_heads=16)
WriteTable = Callable[..., Path]


GUARDED = {"holds_to": 131072, "holds_ragged": True}
UNGUARDED = {"holds_to": None, "holds_ragged": False}


def entry(shape: str, plan: Plan, **fields: Any) -> Entry:
    """An entry that holds wherever an engine stands."""
    return Entry.model_validate(
        {"shape": shape, "plan": plan, "latency_us": 10.0, "default_us": 20.0, **GUARDED, **fields}
    )


def vllm_version() -> str:
    try:
        return importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return "0.32.0"


def cpu_header(backend: str = "TRITON_MLA", mode: str = "graph", **changes: Any) -> Header:
    environment = probe("cpu")
    header = Header.of(environment, backend, MODEL, "auto", mode, 4096)
    software = {"vllm": vllm_version(), **installed_versions(*KERNEL_PACKAGES)}
    values = header.model_dump() | {"software": software} | changes
    return Header.model_validate(values)


DIMENSIONS = {
    "num_q_heads": 16,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
H200 = EngineFacts(
    backend="TRITON_MLA",
    device_name="NVIDIA H200",
    compute_capability="9.0",
    sm_count=132,
    model=tuple(DIMENSIONS.items()),
    kv_cache_dtype="auto",
    quantization="none",
    block_size=16,
    vllm="0.26.0",
    max_model_len=131072,
    max_cudagraph_capture_size=512,
    packages=(("triton", "3.6.0"), ("flashinfer", "0.6.14")),
)
DIGESTS = {"triton_decode_attention.py": "1111", "triton_mla.py": "2222"}
SOFTWARE = {"vllm": "0.26.0", "triton": "3.6.0", "flashinfer": "0.6.14"}


ENGINE = {"mode": "graph", "max_model_len": 131072}


def header(**changes: Any) -> Header:
    fields: dict[str, Any] = {
        "backend": "TRITON_MLA",
        "device": {"name": "NVIDIA H200", "compute_capability": "9.0", "sm_count": 132},
        "model": DIMENSIONS,
        "kv_cache_dtype": "auto",
        "engine": ENGINE,
        "software": SOFTWARE,
    }
    return Header.model_validate(fields | changes)
