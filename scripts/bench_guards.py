#!/usr/bin/env python3
"""What tuning a graph table costs in samples and publishes, with a recording as the device.

    python scripts/bench_guards.py tests/data/h100/graph_triton_mla_held_out.jsonl.gz

Tunes every captured size of an exhaustive recording over three processes. A sample is drawn from
the recorded ones; each process gives each plan of each case a bias of its own. Seconds are what the
samples would take on the GPU, with what a sample takes beside the kernel (flush, spin, wait). A
plan is slower if a case's recorded median is below 0.99 times the default's; regret is by the
weights, against the best plan that is not slower anywhere.
"""

import argparse
import importlib
import math
import random
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mla_tune.measuring.recording import RecordedBench, Recording, Track
from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.plan import Plan
from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.quarantine import Quarantine
from mla_tune.tuning.reporters import SilentReporter
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.study import Journal
from mla_tune.tuning.table_run import TableRun
from mla_tune.tuning.tally import Tally
from mla_tune.tuning.tuner import Tuner
from recorded_size import Recorded, exhaustive

ROOT = Path(__file__).resolve().parents[1]
OVERHEAD_US = 150.0


class CostedBench(RecordedBench):
    """A recording in several processes that counts what its samples take.

    Attributes:
        seconds: by process and kind of case.
        graphs: how many (case, plan) were captured, by process.
        checks: how many (case, plan) outputs were checked, by process.
    """

    def __init__(self, recording: Recording, seed: int, bias: float) -> None:
        super().__init__(recording, seed)
        self._whole = {(t.setup, t.workload.shapes): t for t in recording.tracks}
        self._seed, self._bias = seed, bias
        self.process = 0
        self.seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.graphs: Counter[str] = Counter()
        self.checks: Counter[str] = Counter()
        self._captured: set[Any] = set()

    def _find(self, shapes: Sequence[Any]) -> Track:
        """The track of these shapes, which may be a part of what was recorded."""
        for (setup, recorded), track in self._whole.items():
            if setup == self._setup and set(shapes) <= set(recorded):
                columns = [recorded.index(shape) for shape in shapes]
                cases = tuple(track.workload.cases[column] for column in columns)
                rounds: dict[Plan, Sequence[tuple[float, ...]]] = {
                    plan: [tuple(row[column] for column in columns) for row in rows]
                    for plan, rows in track.rounds.items()
                }
                return replace(track, workload=Workload(cases), rounds=rounds)
        raise KeyError(shapes)

    @property
    def stage(self) -> str:
        return "first process" if self.process == 0 else "each later one"

    def load(self, workload: Workload) -> None:
        super().load(workload)
        self._captured.clear()

    def race(self, plans: Sequence[Plan], *arguments: Any) -> dict[Plan, Samples]:
        """As the recording's, biased and counted."""
        assert self._track is not None
        taken = super().race(plans, *arguments)
        workload = self._track.workload
        kinds = ["guards" if case.weight == 0 else "cases with weight" for case in workload.cases]
        for plan in taken:
            factors = [self._factor(plan, str(shape)) for shape in workload.shapes]
            rounds = np.asarray(taken[plan].rounds) * factors
            taken[plan] = Samples(tuple(map(tuple, rounds.tolist())))
            for number, kind in enumerate(kinds):
                column = rounds[:, number][~np.isnan(rounds[:, number])]
                self.seconds[self.stage, kind] += (column + OVERHEAD_US).sum() / 1e6
                if len(column) and (plan, number) not in self._captured:
                    self._captured.add((plan, number))
                    self.graphs[self.stage] += 1
        return taken

    def _factor(self, plan: Plan, shape: str) -> float:
        draw = random.Random(f"{self._seed} {self.process} {plan} {shape}")
        return draw.lognormvariate(0.0, self._bias)

    def verify(self, plan: Plan) -> None:
        super().verify(plan)
        assert self._track is not None
        self.checks[self.stage] += len(self._track.workload.cases)

    def renew(self) -> bool:
        self.process += 1
        return True


def cut(track: Track, most_tokens: float, longest: float) -> Track:
    """Without the uniform guards of more KV tokens in all, and those with a longer request."""
    cases = track.workload.cases
    kept = [
        number
        for number, case in enumerate(cases)
        if not case.is_guard
        or (
            case.shape.max_kv_len <= longest
            and (case.is_ragged or case.shape.num_kv_tokens <= most_tokens)
        )
    ]
    rounds: dict[Plan, Sequence[tuple[float, ...]]] = {
        plan: [tuple(row[number] for number in kept) for row in rows]
        for plan, rows in track.rounds.items()
    }
    workload = Workload(tuple(cases[number] for number in kept))
    return replace(track, workload=workload, rounds=rounds)


def tuned(recording: Recording, bench: CostedBench) -> list[Entry]:
    """The entries over three processes."""
    fake: Any = importlib.import_module("fake_device")
    workloads = [track.workload for track in recording.tracks]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        setup = recording.tracks[0].setup
        job = TableJob.of(recording.environment, setup, workloads, folder)
        tuner = Tuner(
            bench=bench,
            journal=Journal.in_memory(),
            quarantine=Quarantine(folder / "quarantine.yaml"),
            ward=fake.WARD,
            settings=Settings(confirmation_s=600.0),
        )
        tally = Tally(SilentReporter())
        TableRun(job, tuner, {}, SilentReporter(), tally).run()
        assert tally.failures == []
        return tally.published[job.path]


def verdict(recorded: Recorded, entry: Entry) -> tuple[float, float, float]:
    """The published plan's gain by weights, its regret, and its worst case."""
    shares = tuple(recorded.track.workload.shares())
    plan = entry.plan or recorded.default
    best = recorded.gain(recorded.best_allowed(shares), shares)
    gain = recorded.gain(plan, shares)
    return gain, best / gain - 1, min(recorded.gains(plan))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recording", type=Path)
    parser.add_argument(
        "--max-tokens", type=float, default=math.inf, help="longest uniform guards, in KV tokens"
    )
    parser.add_argument(
        "--served-to", type=float, default=math.inf, help="longest request of any guard"
    )
    parser.add_argument("--bias", type=float, default=0.003, help="sd of a plan's log latency")
    parser.add_argument("--tables", type=int, default=3, help="how many, of other draws")
    given = parser.parse_args(arguments)
    sys.path.insert(0, str(ROOT / "tests"))
    whole = Recording.load(given.recording)
    tracks = tuple(cut(track, given.max_tokens, given.served_to) for track in whole.tracks)
    recording = replace(whole, tracks=tracks)
    found, beyond, published = [], [], 0
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    graphs: Counter[str] = Counter()
    checks: Counter[str] = Counter()
    for seed in range(given.tables):
        bench = CostedBench(recording, seed, given.bias)
        entries = {entry.shape: entry for entry in tuned(recording, bench)}
        found += [verdict(exhaustive(t), entries[str(t.workload)]) for t in recording.tracks]
        beyond += [
            min(exhaustive(track).gains(entries[str(track.workload)].plan or track.plans[0]))
            for track in whole.tracks
        ]
        published += sum(bool(entry.plan) for entry in entries.values())
        later = max(bench.process, 1)
        for (stage, kind), spent in bench.seconds.items():
            seconds[stage, kind] += spent if stage == "first process" else spent / later
        for total, counted in ((graphs, bench.graphs), (checks, bench.checks)):
            for stage, count in counted.items():
                total[stage] += count // (1 if stage == "first process" else later)
    for stage in ("first process", "each later one"):
        parts = {kind: spent for (where, kind), spent in seconds.items() if where == stage}
        told = ", ".join(f"{kind} {spent / given.tables:.1f}" for kind, spent in parts.items())
        print(
            f"{stage}: {sum(parts.values()) / given.tables:.1f} s of samples ({told}), "
            f"{graphs[stage] // given.tables} graphs, {checks[stage] // given.tables} checks"
        )
    gains, regrets, worst = zip(*found, strict=True)
    print(
        f"published {published} of {len(found)}; gain {math.exp(np.mean(np.log(gains))):.3f}x; "
        f"regret {np.mean(regrets):.2%} mean, {max(regrets):.1%} worst; "
        f"slower than 0.99x {sum(w < 0.99 for w in worst)}, least {min(worst):.3f}x; "
        f"with all guards {sum(w < 0.99 for w in beyond)}, {min(beyond):.3f}x"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
