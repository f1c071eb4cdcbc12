#!/usr/bin/env python3
r"""The plans of one table against those of another, and against the default, in a new process.

    mla-tune --backend TRITON_MLA --shapes shapes.yaml --launches none --out splits
    mla-tune --backend TRITON_MLA --shapes shapes.yaml --out launches
    python scripts/race_tables.py splits/TABLE.yaml launches/TABLE.yaml --json raced.json

Every workload that both tables have is raced with three plans side by side: the default, the first
table's and the second's. A table that says the default is raced as the default. Ratios come with
95 % intervals over the rounds of this one process, over all cases by the table's weights.

Exits 1 where a plan of the second table is slower than the default, or does not run.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mla_tune.errors import MlaTuneError, WorkloadFailure
from mla_tune.measuring.bench import Bench
from mla_tune.measuring.orders import order_seed
from mla_tune.plan.failure import PlanFailure
from mla_tune.plan.plan import Plan
from mla_tune.shapes import Workload
from mla_tune.table import Speedup, TableFile
from mla_tune.tuning.device_bench import alone, scratch_worker
from mla_tune.tuning.look import look_at
from mla_tune.tuning.recheck import measured_setup, measured_workload
from needs import need


@dataclass(frozen=True)
class Raced:
    """One workload. Latencies in microseconds; ``slowest_case`` is over the table's cases."""

    shape: str
    plans: tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
    default_us: float
    latency_us: float
    over_default: Speedup
    over_first: Speedup
    slowest_case: Speedup

    def __str__(self) -> str:
        return (
            f"{self.shape}: {self.plans[1]} -> {self.plans[2]}: {_told(self.over_first)} over the "
            f"first table, {_told(self.over_default)} over the default; "
            f"slowest case {_told(self.slowest_case)}"
        )


def main() -> int:
    arguments = _arguments()
    first, second = (TableFile.load(table) for table in (arguments.first, arguments.second))
    found, failed = [], 0
    with (
        scratch_worker(arguments.device) as worker,
        alone(worker, print, wait=False),
    ):
        for each in raced(worker, first, second, worker.device, arguments.rounds):
            print(each, flush=True)
            if isinstance(each, Raced):
                found.append(each)
            else:
                failed += 1
            if arguments.json is not None:
                arguments.json.write_text(json.dumps([_plain(raced) for raced in found], indent=1))
    slower = [each for each in found if min(each.over_default.high, each.slowest_case.high) < 1.0]
    for line in summary(found):
        print(line)
    for each in slower:
        print(f"SLOWER than the default: {each.shape}")
    return int(bool(slower or failed))


def raced(
    bench: Bench, first: TableFile, second: TableFile, device: str, rounds: int
) -> Iterator["Raced | str"]:
    """Race what both tables have; a string says what failed.

    Raises:
        MlaTuneError: the backend cannot be built here.
    """
    others = {entry.shape: entry for entry in first.entries}
    pairs = [(others[entry.shape], entry) for entry in second.entries if entry.shape in others]
    if not pairs:
        return
    workloads = [measured_workload(entry) for _, entry in pairs]
    bench.open(measured_setup(second, workloads, device))
    for (before, after), workload in zip(pairs, workloads, strict=True):
        default = bench.plan_space(workload.shapes).default
        plans = (default, before.plan or default, after.plan or default)
        try:
            yield _raced(bench, workload, plans, rounds)
        except (PlanFailure, WorkloadFailure) as failure:
            yield f"{workload}: {failure.what}"


def _raced(bench: Bench, workload: Workload, plans: tuple[Plan, Plan, Plan], rounds: int) -> Raced:
    bench.load(workload)
    different = list(dict.fromkeys(plans))
    for plan in different[1:]:
        bench.verify(plan)
    samples = bench.race(different, rounds, order_seed(str(workload), 0))
    default, before, after = (samples[plan] for plan in plans)
    shares = workload.shares()
    over_default = look_at(default, after, shares)
    cases = filter(None, (over_default.together, *over_default.cases))
    return Raced(
        shape=str(workload),
        plans=tuple(dict(plan) for plan in plans),  # type: ignore[arg-type]
        default_us=over_default.together.default_us,
        latency_us=over_default.together.latency_us,
        over_default=over_default.together.speedup,
        over_first=look_at(before, after, shares).together.speedup,
        slowest_case=min((case.speedup for case in cases), key=lambda each: each.high),
    )


def summary(found: Sequence[Raced]) -> Iterator[str]:
    """Geometric means and the largest, over the workloads."""
    if not found:
        yield "no workload was raced"
        return
    for label, ratios in (
        ("the default", [each.over_default.median for each in found]),
        ("the first table", [each.over_first.median for each in found]),
    ):
        mean = float(np.exp(np.mean(np.log(ratios))))
        yield (
            f"{len(found)} workloads, over {label}: {mean:.3f}x in the geometric mean, "
            f"{min(ratios):.3f}x to {max(ratios):.3f}x"
        )


def _told(ratio: Speedup) -> str:
    return f"{ratio.median:.3f}x [{ratio.low:.3f}, {ratio.high:.3f}]"


def _plain(raced: Raced) -> dict[str, Any]:
    return asdict(raced) | {
        name: getattr(raced, name).model_dump()
        for name in ("over_default", "over_first", "slowest_case")
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path, help="a table, such as one of split counts alone")
    parser.add_argument("second", type=Path, help="a table for the same device and backend")
    parser.add_argument("--rounds", type=int, default=24, help="samples of each plan")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, help="written after every workload")
    return parser.parse_args()


if __name__ == "__main__":
    need(gpu=True)
    try:
        sys.exit(main())
    except MlaTuneError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
