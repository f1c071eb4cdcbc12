"""What the plugin adds to a step, on the CPU: its builders against vLLM's own.

An engine calls a builder once a step. Both builders of a backend live in one process and take
turns on the same batches: once with the processor's caches swept between two calls, as the rest
of a step does, and once without.

    python scripts/bench_step.py [TRITON_MLA FLASH_ATTN_MLA FLASHMLA]

Without a GPU only TRITON_MLA can be built.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

if not torch.cuda.is_available():
    os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}

from asked_tables import write_tables
from cpu_builders import registered_builder, with_gpu_units
from mla_tune.environment import probe
from mla_tune.plan.bounds import outside
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.registry import vllm_backend
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, MlaDimensions
from mla_tune.vllm.plugin import register
from mla_tune.vllm.session.config import current_config, use_cpu_platform
from mla_tune.vllm.session.inputs import LatentCache, blocks_needed, make_batch
from mla_tune.vllm.session.parts import Parts, build_parts
from needs import need

MODEL = MlaDimensions(num_q_heads=16)
DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"
MAX_MODEL_LEN = 32768
CAPTURES = (8, 32)
SWEEP = bytearray(8 << 20)

PLANS: dict[str, dict[str, Plan]] = {
    "graph": {"32q1s1k": Plan(num_kv_splits=8), "8q1s1k": UNTUNED},
    "eager": {"24q1s1k": Plan(num_kv_splits=8), "4q64s1k": Plan(reorder_batch_threshold=64)},
}

# What a step is, and its batches: those of one kind go round.
STEPS = {
    "graph replay, tuned": ["32q1s1k"],
    "graph replay, vLLM's own": ["8q1s1k"],
    "eager decode, lengths grow": [f"24q1s{1024 + step}" for step in range(256)],
    "eager extend": ["4q64s1k"],
    "mixed": ["2q64s1k_24q1s1k"],
}

# The lookup alone, amortised over these batches.
LOOKUPS = {
    "eager lookup, lengths grow": STEPS["eager decode, lengths grow"],
    "eager lookup, requests come and go": [
        f"{24 + step % 3}q1s{1024 + step}" for step in range(256)
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("backends", nargs="*")
    parser.add_argument("--rounds", type=int, default=400)
    arguments = parser.parse_args()
    here = ["TRITON_MLA", "FLASH_ATTN_MLA", "FLASHMLA"]
    if DEVICE == "cpu":
        here = ["TRITON_MLA"]
        # Before anything else of vLLM: 0.33 looks once, at import, whether memory can be pinned.
        use_cpu_platform()
        with_gpu_units()
    backends = arguments.backends or here
    environment = probe(DEVICE)
    print(f"{environment.device_name}, vLLM {environment.software['vllm']}: microseconds a step")
    own = {name: _builder(name) for name in backends}
    asked = {(name, mode): _plans_of(name, mode) for name in backends for mode in PLANS}
    tables = write_tables(asked, environment, MODEL, MAX_MODEL_LEN)
    os.environ["MLA_TUNE_TABLES"] = str(tables)
    register()
    for name in backends:
        vllms, parts = own[name]
        ours, _ = _builder(name)
        if not hasattr(ours, "mla_tune_backend"):
            raise SystemExit(f"{name}: the registry gave vLLM's own builder")
        with current_config(parts.vllm_config):
            for builder in (vllms, ours):
                for batch in _batches([f"{batch}q1s1k" for batch in CAPTURES], parts):
                    builder.build_for_cudagraph_capture(batch)
            for what, specs in STEPS.items():
                batches = _batches(specs, parts)
                _compare(f"{name} {what}", vllms, ours, batches, arguments.rounds)
            for what, specs in LOOKUPS.items():
                batches = _batches(specs, parts)
                print(f"{name} {what}".ljust(44), f"{_lookup_us(ours, batches):.2f}", flush=True)


def _plans_of(name: str, mode: str) -> dict[str, Plan]:
    """The plans of ``mode``, without those for knobs that the backend does not have."""
    bounds = vllm_backend(name).bounds
    return {
        spec: UNTUNED if any(outside(bounds, plan, None)) else plan
        for spec, plan in PLANS[mode].items()
    }


def _builder(name: str) -> tuple[Any, Parts]:
    """The builder of ``name`` as the registry has it now, for an engine with graphs."""
    setup = Setup(name, MODEL, max_model_len=MAX_MODEL_LEN, device=DEVICE)
    parts = build_parts(setup, vllm_backend(name))
    return registered_builder(name, parts, list(CAPTURES)), parts


def _batches(specs: list[str], parts: Parts) -> list[Any]:
    """What a model runner hands a builder for each of ``specs``."""
    shapes = [BatchShape.parse(spec) for spec in specs]
    blocks = 1 + max(blocks_needed(shape, parts.block_size) for shape in shapes)
    cache = LatentCache(blocks, parts.block_size, MODEL, "auto", parts.dtype, parts.device)
    return [
        make_batch(shape, cache, MAX_MODEL_LEN, None, parts.dtype).metadata(shape.max_kv_len)
        for shape in shapes
    ]


def _compare(what: str, vllms: Any, ours: Any, batches: list[Any], rounds: int) -> None:
    told = []
    for name, sweep in (("cold", _sweep), ("warm", lambda: None)):
        vllms_us, ours_us, added_us = _paired(vllms, ours, batches, rounds, sweep)
        told.append(f"{name} {vllms_us:6.1f} -> {ours_us:6.1f} (added {added_us:5.1f})")
    print(f"{what:43}", *told, sep="  ", flush=True)


def _paired(
    vllms: Any, ours: Any, batches: list[Any], rounds: int, sweep: Callable[[], None]
) -> tuple[float, float, float]:
    """Medians of both builders and of what the second takes longer, in microseconds."""
    taken: dict[Any, list[float]] = {vllms: [], ours: []}
    for turn in range(rounds):
        for builder in (vllms, ours) if turn % 2 else (ours, vllms):
            sweep()
            if DEVICE != "cpu":
                torch.cuda.synchronize()
            started = time.perf_counter_ns()
            builder.build(0, batches[turn % len(batches)])
            taken[builder].append((time.perf_counter_ns() - started) / 1e3)
    added = [b - a for a, b in zip(taken[vllms], taken[ours], strict=True)]
    first, second, third = map(statistics.median, (taken[vllms], taken[ours], added))
    return first, second, third


def _lookup_us(builder: Any, batches: list[Any], passes: int = 20) -> float:
    """Microseconds that the builder's tables take to answer a step, over ``batches`` in turn."""
    look_up = builder.step_policy.choices.eager
    taken = []
    for _ in range(passes):
        started = time.perf_counter_ns()
        for batch in batches:
            look_up(batch)
        taken.append((time.perf_counter_ns() - started) / 1e3 / len(batches))
    return statistics.median(taken)


def _sweep() -> None:
    SWEEP.translate(None)


if __name__ == "__main__":
    need("vllm")
    main()
