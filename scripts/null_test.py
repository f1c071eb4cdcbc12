#!/usr/bin/env python3
"""What the rules publish where nothing is to gain, and how often they find what is.

    python3 scripts/null_test.py                  1,000 batch shapes a row, a quarter of an hour
    python3 scripts/null_test.py --shapes 100

Tunes tables of 50 batch shapes on a made-up device: samples have 1 % noise, each process gives each
plan of each shape a bias that no number of rounds takes away, and a clock that stays for a hundred
samples where it is steps between full speed and 5 % less. Five plans stand beside the default. In
the rows without a gain all are as fast as it is; in the others one of them is faster.

In the last rows one plan is 1.3 times as fast at the listed KV length, and there are ten guards,
each with a bias of its own: at all of them it is as fast as the default, or 2 % slower at one.

"false" counts published plans that are not faster than the default; "held" is how often the truth
lies within the interval of a published entry. Exits 1 if a figure is beyond its bound; rows of one
process have none.
"""

import argparse
import importlib
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mla_tune.plan.plan import Plan
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, Case, MlaDimensions, RequestGroup, Workload
from mla_tune.table import Entry, Header
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.quarantine import Quarantine
from mla_tune.tuning.reporters import SilentReporter
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.study import Journal
from mla_tune.tuning.table_run import TableRun
from mla_tune.tuning.tally import Tally
from mla_tune.tuning.tuner import Tuner

ROOT = Path(__file__).resolve().parents[1]
NOISE = 0.01
SLOW, STEP_SAMPLES = 1.05, 100.0
TABLE = 50
MOST_FALSE = {0.0033: 0.005, 0.0045: 0.01}
"""By the bias: standard deviation of a plan's log latency between processes."""
LEAST_POWER = 0.8
LEAST_HELD = 0.9
GUARDS = 10
GUARDED_GAIN = 1.3
LEAST_KEPT = {0.0033: 0.95, 0.0045: 0.85}
"""By the bias, of plans that are no slower at any guard."""
LEAST_VETO = 0.95


@dataclass(frozen=True)
class Row:
    """What came of one setting.

    Attributes:
        bias: of a plan, see `MOST_FALSE`.
        gain: by how much ``right`` is faster than the default.
        num_processes: that were asked for.
        entries: of all shapes.
        right: the plan that is to be found, where there is a gain.
    """

    bias: float
    gain: float
    num_processes: int
    entries: tuple[Entry, ...]
    right: Plan

    @property
    def published(self) -> float:
        return sum(entry.plan == self.right for entry in self.entries) / len(self.entries)

    @property
    def false(self) -> float:
        wrong = sum(bool(e.plan) and (e.plan != self.right or not self.gain) for e in self.entries)
        return wrong / len(self.entries)

    @property
    def held(self) -> float | None:
        """How often an interval holds the truth; None where nothing was published."""
        found = [entry.speedup for entry in self.entries if entry.plan == self.right]
        if not found or not self.gain:
            return None
        return statistics.fmean(s.low <= 1 + self.gain <= s.high for s in found if s is not None)

    @property
    def is_good(self) -> bool:
        if self.num_processes == 1:  # for comparison
            return True
        if self.false > MOST_FALSE[self.bias] or (self.held or 1.0) < LEAST_HELD:
            return False
        return not self.gain or self.published >= LEAST_POWER

    def __str__(self) -> str:
        held = "" if self.held is None else f"{self.held:.1%}"
        found = f"{self.published:.1%}" if self.gain else ""
        cells = (
            f"{self.bias:.2%}",
            f"{self.gain:.0%}",
            str(self.num_processes),
            f"{self.false:.1%}",
            found,
            held,
        )
        return f"| {' | '.join(cells)} |" + ("" if self.is_good else "  BEYOND ITS BOUND")


@dataclass(frozen=True)
class GuardRow:
    """What came of a plan that gains at the listed length and nothing at its guards.

    Attributes:
        bias: of a plan at a case.
        loss: by how much it is slower at one of the guards.
        published: the share of batch shapes for which it was published.
    """

    bias: float
    loss: float
    published: float

    @property
    def is_good(self) -> bool:
        return (
            self.published <= 1 - LEAST_VETO
            if self.loss
            else self.published >= LEAST_KEPT[self.bias]
        )

    def __str__(self) -> str:
        cells = f"{self.bias:.2%}", str(GUARDS), f"{self.loss:.0%}", f"{self.published:.1%}"
        return f"| {' | '.join(cells)} |" + ("" if self.is_good else "  BEYOND ITS BOUND")


GUARD_HEAD = """\

| bias | guards | one slower by | published |
|---|---|---|---|"""
HEAD = """\
| bias | true gain | processes | false | found | held |
|---|---|---|---|---|---|"""


def workload_of(batch: int, guards: int) -> Workload:
    """One listed KV length of 1024, and so many guards beyond."""
    lengths = [1024 * (number + 1) for number in range(guards + 1)]
    shapes = [BatchShape((RequestGroup(1, kv_len, batch),)) for kv_len in lengths]
    return Workload(tuple(Case(s, float(n == 0)) for n, s in enumerate(shapes)))


def tuned(
    bench: Any, num_shapes: int, processes: int, folder: Path, guards: int = 0
) -> list[Entry]:
    """The entries of one table."""
    fake: Any = importlib.import_module("fake_device")
    workloads = tuple(workload_of(batch, guards) for batch in range(1, num_shapes + 1))
    model = MlaDimensions(2)
    header = Header.of(fake.ENVIRONMENT, "TORCH_MLA", model, "auto", "eager", 4096)
    job = TableJob(Setup("TORCH_MLA", model), workloads, header, folder / "table.yaml")
    job.path.unlink(missing_ok=True)
    reporter = SilentReporter()
    tuner = Tuner(
        bench=bench,
        journal=Journal.in_memory(),
        quarantine=Quarantine(folder / "quarantine.yaml"),
        ward=fake.WARD,
        settings=Settings(processes=processes, confirmation_s=600.0),
    )
    tally = Tally(reporter)
    TableRun(job, tuner, {}, reporter, tally).run()
    assert tally.failures == []
    return tally.published[job.path]


def row(bias: float, gain: float, processes: int, num_shapes: int, seed: int = 0) -> Row:
    """Tune so many shapes, a table after another."""
    fake: Any = importlib.import_module("fake_device")
    right: Plan = fake.splits(8)
    latencies = dict.fromkeys((fake.DEFAULT, *map(fake.splits, (1, 2, 8, 16, 32))), 100.0)
    latencies[right] /= 1 + gain
    entries: list[Entry] = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, start in enumerate(range(0, num_shapes, TABLE)):
            draw = 1000 * seed + number
            clock = fake.StickyClock(SLOW, STEP_SAMPLES, draw)
            bench = fake.BiasedBench(latencies, noise=NOISE, seed=draw, bias=bias, slowdown=clock)
            size = min(TABLE, num_shapes - start)
            entries += tuned(bench, size, processes, Path(scratch))
    return Row(bias, gain, processes, tuple(entries), right)


def guard_row(bias: float, loss: float, num_shapes: int) -> GuardRow:
    """Tune so many shapes with guards, a table after another."""
    fake: Any = importlib.import_module("fake_device")
    right: Plan = fake.splits(8)
    lengths = [case.shape.max_kv_len for case in workload_of(1, GUARDS).cases]
    at = dict.fromkeys(lengths, 100.0)
    latencies = {
        fake.DEFAULT: at,
        right: at | {lengths[0]: 100.0 / GUARDED_GAIN, lengths[-1]: 100.0 * (1 + loss)},
    }
    entries: list[Entry] = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, start in enumerate(range(0, num_shapes, TABLE)):
            clock = fake.StickyClock(SLOW, STEP_SAMPLES, number)
            bench = fake.BiasedBench(
                latencies, noise=NOISE, seed=number, bias=bias, is_by_case=True, slowdown=clock
            )
            size = min(TABLE, num_shapes - start)
            entries += tuned(bench, size, 3, Path(scratch), GUARDS)
    return GuardRow(bias, loss, sum(bool(entry.plan) for entry in entries) / len(entries))


def rows(num_shapes: int) -> Iterator[Row]:
    for bias in MOST_FALSE:
        for gain in (0.0, 0.02, 0.05):
            yield row(bias, gain, 3, num_shapes)
        yield row(bias, 0.0, 1, num_shapes)
        yield row(bias, 0.05, 1, num_shapes)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--shapes", type=int, default=1000)
    args = parser.parse_args(arguments)
    sys.path.insert(0, str(ROOT / "tests"))
    print(HEAD)
    good = True
    for found in rows(args.shapes):
        print(found, flush=True)
        good = good and found.is_good
    print(GUARD_HEAD)
    for bias in MOST_FALSE:
        for loss in (0.0, 0.02):
            guarded = guard_row(bias, loss, args.shapes)
            print(guarded, flush=True)
            good = good and guarded.is_good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
