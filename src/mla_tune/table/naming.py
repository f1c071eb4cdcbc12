"""The name of a table's file, which holds all that tells it from other tables."""

__all__ = ["table_path"]

import re
from pathlib import Path

from mla_tune.registry import BACKENDS
from mla_tune.shapes import MlaDimensions
from mla_tune.table.header import Header


def table_path(folder: Path, header: Header) -> Path:
    """Where a table lives: its name holds all that tells it from other tables.

    Such as ``TRITON_MLA-NVIDIA_H200-heads_16-kv_auto-graph-vllm_0.26.0.yaml``: a name that may
    also be a key of a Kubernetes ConfigMap, which allows letters, digits and ``-._`` only.
    """
    model = header.model
    dims = [model[name] for name in MlaDimensions.__dataclass_fields__ if name != "num_q_heads"]
    parts = [header.backend, header.device.name, f"heads_{model['num_q_heads']}"]
    if dims != [512, 128, 64, 128]:
        parts.append("_".join(map(str, ("dims", *dims))))
    parts += [f"kv_{header.kv_cache_dtype}", header.engine.mode, *_unusual(header)]
    if header.device.locked_sm_clock_mhz is not None:
        parts.append(f"clock_{header.device.locked_sm_clock_mhz}")
    if "vllm" in header.software and BACKENDS[header.backend].is_vllm:
        parts.append(f"vllm_{header.software['vllm']}")
    return folder / (re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(parts)) + ".yaml")


def _unusual(header: Header) -> list[str]:
    """What tells a table from that of an engine with vLLM's own settings."""
    words = {"quantization": "", "block_size": "block_", "max_cudagraph_capture_size": "capture_"}
    return [f"{words[name]}{value}" for name, value in header.own_settings.items()]
