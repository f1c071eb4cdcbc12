"""A TRITON_MLA table for eager steps of an H200 that carries a model."""

import dataclasses

from fake_device import ENVIRONMENT
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes import MlaDimensions
from mla_tune.table import Entry, Header, Table
from mla_tune.table.between import Between

H200 = dataclasses.replace(
    ENVIRONMENT,
    device_name="NVIDIA H200",
    compute_capability="9.0",
    sm_count=132,
    software={"vllm": "0.33.0", "triton": "3.6.0"},
)
HEADER = Header.of(H200, "TRITON_MLA", MlaDimensions(16), "auto", "eager", 131072)

MODEL = Between(
    knob="num_kv_splits",
    cut="tiled",
    occupancy=2,
    us={
        "launch": 24.4,
        "request": 0.104,
        "split": 0.275,
        "block": 0.0097,
        "wave_token": 0.111,
        "shared_wave": 3.37,
        "shared_wave_token": 0.0333,
    },
    gate=1.01,
    error=0.036,
    points=36,
    regret=0.0005,
    worst_regret=0.017,
    values={1: 1024, 2: 1024, 4: 1024, 8: 1024, 16: 1024, 32: 1024, 64: 4096},
    defaults={1024: 2, 4096: 8, 16384: 8},
    smallest=(1, 1024),
    largest=((64, 16384), (256, 4096)),
)


def entry(shape: str, plan: Plan) -> Entry:
    return Entry(shape=shape, plan=plan, latency_us=10.0, default_us=20.0)


ENTRIES = (
    entry("32q1s4k", Plan(num_kv_splits=2)),
    entry("64q1s4k", UNTUNED),
    entry("8q16s4k", Plan(reorder_batch_threshold=1)),
)


def modelled(**changes) -> Table:
    return Table(HEADER, ENTRIES, MODEL.model_copy(update=changes))
