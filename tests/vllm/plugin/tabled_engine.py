"""Tables that are true for an engine on this machine's CPU."""

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mla_tune.environment import KERNEL_PACKAGES, installed_versions, probe
from mla_tune.plan.knobs import Plan
from mla_tune.shapes import MlaDimensions
from mla_tune.table import Entry, Header

MODEL = MlaDimensions(num_q_heads=16)
WriteTable = Callable[..., Path]


def entry(shape: str, plan: Plan | None, **fields: Any) -> Entry:
    return Entry.model_validate(
        {"shape": shape, "plan": plan, "latency_us": 10.0, "default_us": 20.0, **fields}
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
