#!/usr/bin/env python3
"""One GPU against several: wall time, efficiency, winners; then a run of which a worker is killed.

python scripts/bench_devices.py --devices 0,1 [--shapes 40] [--runs one several killed]

The runs write to folders of their own below --out, and all begin from nothing. Each leaves what it
took there too: runs of several commands, one after another or at once on different GPUs, are
compared by the last that ends.
"""

import argparse
import collections
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import psutil

import compare_tables
import mla_tune
from mla_tune.errors import MlaTuneError
from mla_tune.plan.plan import Plan
from mla_tune.shapes import Workload, parse_size
from mla_tune.tuning.api import SilentReporter, TuneResult
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.study import Outcome
from needs import need
from question_times import QuestionTimes

BATCHES = (1, 2, 4, 8, 16, 24, 32, 48)
KV_LENS = ("512", "1k", "2k", "4k", "8k")
GRAPH_BATCHES = (1, 2, 4, *range(8, 257, 8), *range(272, 513, 16))
GRAPH_KV_LENS = ("1k", "4k")
RUNS = ("one", "several", "killed")
KILL_AT = 12


class Counting(SilentReporter):
    """Counts trials, and kills a worker at one of them.

    Args:
        workers: how many measure.
        kill_at: the trial; 0: none.
    """

    def __init__(self, workers: int, kill_at: int = 0) -> None:
        self.trials: collections.Counter[tuple[str, str, str, Plan]] = collections.Counter()
        self.remarks: list[str] = []
        self.devices: dict[str, OnDevice] = {}
        self.began_s = time.monotonic()
        self._workers = workers
        self._kill_at = kill_at

    def on(self, device: str) -> "OnDevice":
        return self.devices.setdefault(device, OnDevice(device, self))

    def skipped(self, what: str) -> None:
        self.remarks.append(what)

    def count(self, trial: tuple[str, str, str, Plan]) -> None:
        self.trials[trial] += 1
        if sum(self.trials.values()) == self._kill_at:
            victim = self._last_worker()
            print(f"  trial {self._kill_at}: kill -9 {victim.pid}")
            os.kill(victim.pid, signal.SIGKILL)

    def _last_worker(self) -> psutil.Process:
        """Of the processes that measure, which have started before those that are to follow."""
        children = psutil.Process().children()
        own = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        return sorted(own, key=psutil.Process.create_time)[self._workers - 1]

    def timeline(self) -> list[dict[str, Any]]:
        """When each device began and ended to tune, in seconds since the run began."""
        return [
            {
                "device": device.device,
                "shapes": device.shapes,
                "first_s": device.first_s - self.began_s,
                "last_s": device.last_s - self.began_s,
                "processes_s": [at - self.began_s for at in device.renewed_s],
            }
            for device in self.devices.values()
            if device.shapes
        ]


class OnDevice(SilentReporter):
    """What happens on one device."""

    def __init__(self, device: str, whole: Counting) -> None:
        self.device = device
        self.shapes = 0
        self.first_s = self.last_s = 0.0
        self.renewed_s: list[float] = []
        self._whole = whole
        self._table = ""

    def skipped(self, what: str) -> None:
        self._whole.skipped(f"{self.device}: {what}")

    def started(self, job: TableJob, workload: Workload) -> None:
        del workload
        self._table = job.path.stem
        self.first_s = self.first_s or time.monotonic()
        self.shapes += not self.renewed_s  # winners are begun again in the processes that follow

    def tried(self, workload: Workload, outcome: Outcome, best_us: float | None) -> None:
        del best_us
        self._whole.count((self._table, str(workload), self.device, outcome.plan))

    def nominated(self, job: TableJob, workload: Workload, entry: Any) -> None:
        del job, workload, entry
        self.last_s = time.monotonic()

    def decided(self, job: TableJob, workload: Workload, entry: Any) -> None:
        del job, workload, entry
        self.last_s = time.monotonic()

    def failed(self, job: TableJob, workload: Workload, error: MlaTuneError) -> None:
        del job, workload, error
        self.last_s = time.monotonic()

    def renewed(self, job: TableJob, num_nominees: int) -> None:
        del job, num_nominees
        self.renewed_s.append(time.monotonic())


def specs(mode: str, count: int) -> list[str]:
    """The batch specs of ``count`` shapes: a graph is one shape, with some KV lengths."""
    if mode == "graph":
        return [spec(batch, kv) for batch in GRAPH_BATCHES[:count] for kv in GRAPH_KV_LENS]
    return [spec(batch, kv) for kv in KV_LENS for batch in BATCHES][:count]


def spec(batch: int, kv: str) -> str:
    return f"{batch if batch > 1 else ''}q1s{kv}"


def tuned(args: argparse.Namespace, run: str, devices: str, count: int) -> None:
    """Tune on ``devices`` from nothing, and say what it took."""
    folder = args.out / run
    shutil.rmtree(folder, ignore_errors=True)
    shapes = {"model": args.model, "tensor_parallel_sizes": [args.tensor_parallel_size]}
    shapes |= {"engine": {"modes": [args.mode], "max_model_len": args.max_model_len}}
    shapes |= {"batch_specs": specs(args.mode, count)}
    given = {"confirm_seconds": args.confirm_seconds, "processes": args.processes}
    reporter = Counting(len(devices.split(",")), KILL_AT if run == "killed" else 0)
    times = QuestionTimes()
    with times.watched():
        result = mla_tune.tune(
            shapes,
            backends=args.backends,
            launches="none",  # the search for them is one device's, before all others can begin
            devices=devices,
            out=folder / "tables",
            study_dir=folder / "study",
            reporter=reporter,
            **{name: value for name, value in given.items() if value is not None},
        )
    seconds = time.monotonic() - reporter.began_s
    report(f"{run} ({devices})", seconds, result, reporter)
    for device in times.seconds:
        print(f"  {device} answered: {times.told(device)}")
    if run == "killed":
        report_kill(result, reporter, count * len(args.backends))
    took = {
        "devices": len(devices.split(",")),
        "seconds": seconds,
        "on": reporter.timeline(),
        "answers_s": times.seconds,
        "asked": [shapes, args.backends, given],
    }
    (folder / "took.json").write_text(json.dumps(took))


def report(name: str, seconds: float, result: TuneResult, reporter: Counting) -> None:
    entries = sum(len(table.entries) for table in result.tables)
    print(f"{name}: {seconds:.1f} s, {entries} entries, {len(result.failures)} failures")
    by_device = collections.Counter(device for _, _, device, _ in reporter.trials.elements())
    timeline = reporter.timeline()
    end_s = max((on["last_s"] for on in timeline), default=0.0)
    for on in timeline:
        processes = ", ".join(f"{at:.1f} s" for at in on["processes_s"])
        print(
            f"  {on['device']}: {on['shapes']} shapes, {by_device[on['device']]} trials; starts "
            f"{on['first_s']:.1f} s, tunes until {on['last_s']:.1f} s, idle then for "
            f"{end_s - on['last_s']:.1f} s; other processes at {processes or '-'}"
        )
    for remark in (*reporter.remarks, *(str(failure.error) for failure in result.failures)):
        print(f"  {remark}")


def report_kill(result: TuneResult, reporter: Counting, wanted: int) -> None:
    by_plan = collections.Counter(
        (table, shape, plan) for table, shape, _, plan in reporter.trials.elements()
    )
    entries = sum(len(table.entries) for table in result.tables)
    twice = sum(count > 1 for count in by_plan.values())
    print(f"  {entries} of {wanted} shapes decided, {twice} trials taken twice")


def compare(out: Path) -> None:
    """Compare one device with several, where both have run and were asked the same."""
    paths = [out / run / "took.json" for run in RUNS[:2]]
    if not all(path.exists() for path in paths):
        return
    one, several = (json.loads(path.read_text()) for path in paths)
    if one["asked"] != several["asked"]:
        print("one device and several were asked different things: not compared")
        return

    def tuning_s(took: dict[str, Any]) -> float:
        ends, starts = ([on[key] for on in took["on"]] for key in ("last_s", "first_s"))
        return float(max(ends) - min(starts))

    whole = one["seconds"] / several["seconds"] / several["devices"]
    tuning = tuning_s(one) / tuning_s(several) / several["devices"]
    print(f"efficiency: {whole:.2f} of the whole runs, {tuning:.2f} from the first shape on")
    compare_tables.compare(out / "one" / "tables", out / "several" / "tables")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--devices", default="0,1", help="'one' takes the first")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=RUNS)
    parser.add_argument("--backends", nargs="+", default=["TRITON_MLA", "FLASH_ATTN_MLA"])
    parser.add_argument("--model", default="deepseek-v3")
    parser.add_argument("--tensor-parallel-size", type=int, default=8)
    parser.add_argument("--mode", choices=("eager", "graph"), default="eager")
    parser.add_argument("--max-model-len", type=parse_size, default=131072)
    parser.add_argument("--shapes", type=int, default=40, help="how many, 40 at most")
    parser.add_argument("--kill-shapes", type=int, default=6, help="of the run with a kill")
    parser.add_argument("--confirm-seconds", type=float, help="default: as mla-tune")
    parser.add_argument("--processes", type=int, help="default: as mla-tune")
    parser.add_argument("--out", type=Path, default=Path("build/devices"))
    args = parser.parse_args()

    if "one" in args.runs:
        tuned(args, "one", args.devices.split(",")[0], args.shapes)
    if "several" in args.runs:
        tuned(args, "several", args.devices, args.shapes)
    if {"one", "several"} & set(args.runs):
        compare(args.out)
    if "killed" in args.runs:
        tuned(args, "killed", args.devices, args.kill_shapes)


if __name__ == "__main__":
    need("vllm", gpu=True)
    main()
