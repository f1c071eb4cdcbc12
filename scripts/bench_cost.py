#!/usr/bin/env python3
"""What a verdict costs, against vLLM's own sweep over the same values, in one run on one GPU.

    python scripts/bench_cost.py --sdist vllm-0.26.0 --out cost.json

vLLM's side is ``run_parameter_sweep`` of benchmarks/attention_benchmarks/benchmark.py, imported
from the unpacked sdist, with its command's defaults: it times ``forward_mqa`` of ten layers for
every value. Our side is one whole tune: every effective plan, verification, confirmation. Both
run twice; the first pass compiles, and is reported apart.
"""

import argparse
import contextlib
import importlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mla_tune.environment import probe
from mla_tune.measuring.bench import SessionBench
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, Case, MlaDimensions, Workload
from mla_tune.table import Entry
from mla_tune.tuning.quarantine import Quarantine, Ward
from mla_tune.tuning.study import Journal
from mla_tune.tuning.tuner import Tuner
from needs import need

SPECS = ("q1s1k", "8q1s1k", "32q1s1k", "q1s8k", "8q1s8k", "32q1s4k")


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds that ``work`` takes, with what it returns."""
    started = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - started, result


def upstream_sweep(backend: str, spec: str, heads: int, values: list[int]) -> list[str]:
    """Run vLLM's sweep of one batch spec as its command line would; return what went wrong."""
    benchmark = importlib.import_module("benchmark")
    common = importlib.import_module("common")
    arguments = {
        "num_layers": 10,
        "head_dim": 576,
        "v_head_dim": 128,
        "num_q_heads": heads,
        "num_kv_heads": 1,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "block_size": 64,
        "device": "cuda:0",
        "profile_memory": False,
        "use_cuda_graphs": True,
    }
    sweep = common.ParameterSweep(param_name="num_kv_splits", values=values)
    console = importlib.import_module("rich.console").Console(file=io.StringIO())
    with contextlib.redirect_stderr(io.StringIO()):
        results = benchmark.run_parameter_sweep([backend], [spec], arguments, sweep, console)
    return [str(result.error) for result in results if result.error]


class OurTune:
    """One bench on which workloads are tuned again and again."""

    def __init__(self, backend: str, heads: int, mode: str) -> None:
        environment = probe("cuda")
        self._bench = SessionBench(environment)
        self._setup = Setup(backend, MlaDimensions(heads), mode=mode, device="cuda")
        self._bench.open(self._setup)
        self._ward = Ward(backend, environment.device_name, {}, "auto", mode, {}, "")

    def tune(self, workload: Workload) -> Entry:
        """Tune from nothing."""
        with tempfile.TemporaryDirectory() as scratch:
            journal = Journal(Path(scratch) / "journal")
            quarantine = Quarantine(Path(scratch) / "quarantine.yaml")
            try:
                return Tuner(self._bench, journal, quarantine, self._ward).tune(workload)
            finally:
                journal.close()

    def values(self, workload: Workload) -> list[int]:
        """The split counts among the effective plans."""
        plans = self._bench.plan_space(workload.shapes).plans
        return sorted(
            {splits for plan in plans if (splits := plan.number("num_kv_splits")) is not None}
        )

    def close(self) -> None:
        self._bench.close()


def compare(backend: str, heads: int, mode: str) -> list[dict[str, Any]]:
    """Time both sides for every spec."""
    ours = OurTune(backend, heads, mode)
    rows = []
    for spec in SPECS:
        workload = Workload((Case(BatchShape.parse(spec)),))
        values = ours.values(workload)
        cold_s, _ = timed(ours.tune, workload)
        ours_s, entry = timed(ours.tune, workload)
        upstream_cold_s, _ = timed(upstream_sweep, backend, spec, heads, values)
        upstream_s, errors = timed(upstream_sweep, backend, spec, heads, values)
        rows.append(
            {
                "backend": backend,
                "heads": heads,
                "mode": mode,
                "shape": spec,
                "values": values,
                "plan": dict(entry.plan),
                "default_us": entry.default_us,
                "latency_us": entry.latency_us,
                "ours_s": ours_s,
                "ours_first_s": cold_s,
                "upstream_s": upstream_s,
                "upstream_first_s": upstream_cold_s,
                "times_cheaper": upstream_s / ours_s,
                "upstream_errors": errors,
            }
        )
        row = rows[-1]
        print(
            f"{backend} {heads} heads {mode} {spec}: {len(values)} values, "
            f"{entry.latency_us:.1f} µs, ours {ours_s:.2f} s (first {cold_s:.2f}), vLLM "
            f"{upstream_s:.2f} s (first {upstream_cold_s:.2f}), {row['times_cheaper']:.1f}×",
            errors[:1],
            flush=True,
        )
    ours.close()
    return rows


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--sdist", type=Path, required=True, help="unpacked vLLM sdist")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heads", type=int, default=16)
    args = parser.parse_args()
    sys.path.insert(0, str(args.sdist / "benchmarks" / "attention_benchmarks"))
    rows = compare("TRITON_MLA", args.heads, "graph")
    args.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    need("vllm", gpu=True)
    main()
