"""Records of served steps, as an engine with MLA_TUNE_RECORD writes them."""

import json
from pathlib import Path
from typing import Any

from tabled_engine import DIMENSIONS

ENGINE: dict[str, Any] = {
    "backend": "TRITON_MLA",
    "model": DIMENSIONS,
    "kv_cache_dtype": "auto",
    "max_model_len": 131072,
    "device": "NVIDIA H200",
    "vllm": "0.26.0",
}


def written(path: Path, *steps: tuple[str, str, int, int, int, int, int], **fields: Any) -> Path:
    """A record of (mode, outcome, batch, query, mean and longest KV length, times)."""
    names = ("mode", "outcome", "batch", "query_len", "kv_len", "longest_kv_len", "count")
    rows = [dict(zip(names, step, strict=True)) for step in steps]
    path.write_text(json.dumps({"format": 2, **ENGINE, "steps": rows} | fields))
    return path
