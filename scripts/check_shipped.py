"""Whether an engine on this GPU and this vLLM uses the tables of a wheel, in a minute.

Builds the real layer of each table's heads, and the builder that vLLM's registry gives an engine
which captures the table's sizes, then captures three of the batches for which the table has a plan
that acts: the smallest, the middle and the largest. Exits 1 if no table is for this machine, if a
value did not arrive, or if the result is not that of a float64 reference.

    python scripts/check_shipped.py [--tables bundled] [TRITON_MLA …]
"""

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Any

from cpu_builders import registered_builder, with_gpu_units
from mla_tune.catalogue.machine import Machine
from mla_tune.environment import probe
from mla_tune.registry import get_backend
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, MlaDimensions, Workload
from mla_tune.table.loading import LoadedTable, load_tables
from mla_tune.vllm.plugin import register
from mla_tune.vllm.session.config import use_cpu_platform
from needs import need
from one_step import arrival_problem, captured_step

KV_CACHE_BYTES = 2**30
"""Of the one layer that there is here: a million tokens, as 61 layers have them in 64 GiB."""
KV_LEN = 512


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backends", nargs="*", help="all by default")
    parser.add_argument("--tables", default="bundled", help="as MLA_TUNE_TABLES")
    parser.add_argument("--device", default="cuda:0")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        use_cpu_platform()
        with_gpu_units()
    environment = probe(arguments.device)
    os.environ["MLA_TUNE_TABLES"] = arguments.tables
    register()
    machine = Machine.here(environment.device_name)
    used = failed = 0
    for loaded in load_tables(arguments.tables)[0]:
        header = loaded.table.header
        asked = not arguments.backends or header.backend in arguments.backends
        if loaded.mode != "graph" or header.device.name != environment.device_name or not asked:
            continue
        print(f"{loaded}:", flush=True)
        unavailable = get_backend(header.backend).unavailable(environment)
        if reasons := [unavailable] if unavailable else machine.why_not(loaded.table):
            print(f"  not here: {'; '.join(reasons)}")
            continue
        for told, problem in _checked(loaded, arguments.device):
            used += not problem
            failed += bool(problem)
            print(f"  {told}: {problem or 'reached the kernel'}", flush=True)
    print(f"{used} plans reached their kernels, {failed} did not")
    return int(failed > 0 or used == 0)


def _checked(loaded: LoadedTable, device: str) -> Iterator[tuple[str, str]]:
    """A line for each batch looked at, and what is wrong with it."""
    from mla_tune.registry import vllm_backend
    from mla_tune.vllm.session.parts import build_parts
    from mla_tune.vllm.session.session import VllmSession

    header = loaded.table.header
    setup = Setup(
        header.backend,
        MlaDimensions(**header.model),
        kv_cache_dtype=header.kv_cache_dtype,
        max_model_len=header.engine.max_model_len,
        max_num_requests=512,
        device=device,
        quantization=header.quantization,
    )
    parts = build_parts(setup, vllm_backend(header.backend))
    parts.vllm_config.cache_config.kv_cache_memory_bytes = KV_CACHE_BYTES
    workloads = [Workload.parse(entry.shape) for entry in loaded.table.entries]
    sizes = sorted({workload.shapes[0].num_query_tokens for workload in workloads})
    builder = registered_builder(header.backend, parts, sizes)
    if not hasattr(builder, "mla_tune_backend"):
        yield "builder", "the registry gave vLLM's own"
        return
    deployment = builder.step_policy.deployment
    acting = [key for key, choice in deployment.planned.items() if choice.plan]
    session = VllmSession(setup, parts)
    for requests, query_len in _spread(acting):
        shape = BatchShape.parse(f"{requests}q{query_len}s{KV_LEN}")
        session.load([shape])
        verified = deployment.counts.verified
        _, apart = captured_step(session, shape, builder)
        problem = arrival_problem(deployment.counts, verified, apart)
        yield f"{shape} {deployment.planned[requests, query_len].plan}", problem
    session.close()


def _spread(acting: list[Any]) -> list[Any]:
    """The first, the middle and the last."""
    ordered = sorted(acting)
    return sorted({ordered[0], ordered[len(ordered) // 2], ordered[-1]}) if ordered else []


if __name__ == "__main__":
    need("vllm", gpu=True)
    sys.exit(main())
