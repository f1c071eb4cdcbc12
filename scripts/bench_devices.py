#!/usr/bin/env python3
"""One GPU against several: wall time, efficiency, winners; then a run of which a worker is killed.

python scripts/bench_devices.py --devices 0,1 [--shapes 40] [--confirm-seconds 2]

The runs write to folders of their own below --out, and all begin from nothing.
"""

import argparse
import collections
import os
import shutil
import signal
import time
from pathlib import Path

import psutil

import compare_tables
import mla_tune
from mla_tune.plan.plan import Plan
from mla_tune.shapes import Workload
from mla_tune.tuning.api import SilentReporter, TuneResult
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.study import Outcome

BATCHES = (1, 2, 4, 8, 16, 24, 32, 48)
KV_LENS = ("512", "1k", "2k", "4k", "8k")


class Counting(SilentReporter):
    """Counts trials, and kills a worker at one of them.

    Args:
        kill_at: the trial; 0: none.
    """

    def __init__(self, kill_at: int = 0) -> None:
        self.trials: collections.Counter[tuple[str, str, str, Plan]] = collections.Counter()
        self.remarks: list[str] = []
        self._kill_at = kill_at

    def on(self, device: str) -> "OnDevice":
        return OnDevice(device, self)

    def skipped(self, what: str) -> None:
        self.remarks.append(what)

    def count(self, trial: tuple[str, str, str, Plan]) -> None:
        self.trials[trial] += 1
        if sum(self.trials.values()) == self._kill_at:
            workers = psutil.Process().children()
            victim = max(workers, key=lambda child: child.create_time())
            print(f"  trial {self._kill_at}: kill -9 {victim.pid} of {len(workers)} children")
            os.kill(victim.pid, signal.SIGKILL)


class OnDevice(SilentReporter):
    """What happens on one device."""

    def __init__(self, device: str, whole: Counting) -> None:
        self.device = device
        self._whole = whole
        self._table = ""

    def skipped(self, what: str) -> None:
        self._whole.skipped(f"{self.device}: {what}")

    def started(self, job: TableJob, workload: Workload) -> None:
        del workload
        self._table = job.path.stem

    def tried(self, workload: Workload, outcome: Outcome, best_us: float | None) -> None:
        del best_us
        self._whole.count((self._table, str(workload), self.device, outcome.plan))


def specs(count: int) -> list[str]:
    every = [f"{b if b > 1 else ''}q1s{kv}" for kv in KV_LENS for b in BATCHES]
    return every[:count]


def tuned(
    args: argparse.Namespace, devices: str, count: int, reporter: Counting
) -> tuple[float, TuneResult, Path]:
    """Tune on ``devices`` from nothing; the seconds that took, the result and its tables."""
    folder = args.out / f"{devices.replace(',', '-')}-{count}"
    shutil.rmtree(folder, ignore_errors=True)
    shapes = {"model": args.model, "tensor_parallel_sizes": [args.tensor_parallel_size]}
    began = time.monotonic()
    result = mla_tune.tune(
        shapes | {"batch_specs": specs(count)},
        backends=args.backends,
        devices=devices,
        out=folder / "tables",
        study_dir=folder / "study",
        confirm_seconds=args.confirm_seconds,
        processes=args.processes,
        reporter=reporter,
    )
    return time.monotonic() - began, result, folder / "tables"


def report(name: str, seconds: float, result: TuneResult, reporter: Counting) -> None:
    entries = sum(len(table.entries) for table in result.tables)
    by_device = collections.Counter(device for _, _, device, _ in reporter.trials.elements())
    print(f"{name}: {seconds:.1f} s, {entries} entries, {len(result.failures)} failures")
    print(f"  trials: {dict(by_device)}")
    for remark in (*reporter.remarks, *(str(failure.error) for failure in result.failures)):
        print(f"  {remark}")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--devices", default="0,1")
    parser.add_argument("--backends", nargs="+", default=["TRITON_MLA", "FLASH_ATTN_MLA"])
    parser.add_argument("--model", default="deepseek-v3")
    parser.add_argument("--tensor-parallel-size", type=int, default=8)
    parser.add_argument("--shapes", type=int, default=40, help="how many, of 40")
    parser.add_argument(
        "--kill-shapes", type=int, default=6, help="of the run with a kill; 0: none"
    )
    parser.add_argument("--confirm-seconds", type=float, default=2.0)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("build/devices"))
    args = parser.parse_args()

    names = args.devices.split(",")
    one, several = Counting(), Counting()
    alone_s, result, alone = tuned(args, names[0], args.shapes, one)
    report(f"one device ({names[0]})", alone_s, result, one)
    together_s, result, together = tuned(args, args.devices, args.shapes, several)
    report(f"{len(names)} devices ({args.devices})", together_s, result, several)
    print(f"efficiency: {alone_s / together_s / len(names):.2f}")
    compare_tables.compare(alone, together)
    if args.kill_shapes:
        killed = Counting(kill_at=12)
        seconds, result, _ = tuned(args, args.devices, args.kill_shapes, killed)
        report("a worker killed", seconds, result, killed)
        by_plan = collections.Counter(
            (table, shape, plan) for table, shape, _, plan in killed.trials.elements()
        )
        wanted = args.kill_shapes * len(args.backends)
        entries = sum(len(table.entries) for table in result.tables)
        twice = sum(count > 1 for count in by_plan.values())
        print(f"  {entries} of {wanted} shapes decided, {twice} trials taken twice")


if __name__ == "__main__":
    main()
