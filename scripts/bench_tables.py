#!/usr/bin/env python3
"""What a table of thousands of entries costs: to tune into, to load, to show, to look up in.

    python3 scripts/bench_tables.py                 5,000 shapes, some minutes
    python3 scripts/bench_tables.py --shapes 1000

Tunes so many shapes, and a hundred, on the fake device of the tests, which answers at once: what is
left is what this program itself does for a shape, most of it keeping the study on disk. Prints a
line a figure with its bound, and exits 1 if one is beyond.
"""

import argparse
import importlib
import io
import itertools
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from mla_tune.cli.terminal import TerminalReporter
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, Case, MlaDimensions, RequestGroup, Workload
from mla_tune.table import Header, Table
from mla_tune.tuning.campaign import Campaign
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
FEW = 100
MOST_SLOWDOWN = 1.5
MOST_LOAD_S = 1.0
MOST_SHOW_S = 2.0
MOST_LOOKUP_US = 10.0

QUERY_LENS = (1, 2, 4, 16, 64)
KV_LENS = tuple(64 * number for number in range(1, 26))


@dataclass(frozen=True)
class Figure:
    """One measured value and the most it may be; without a bound it is told only."""

    name: str
    value: float
    unit: str
    most: float | None = None

    @property
    def is_good(self) -> bool:
        return self.most is None or self.value <= self.most

    def __str__(self) -> str:
        bound = f"  (at most {self.most:g})" if self.most is not None else ""
        verdict = "" if self.is_good else "  TOO MUCH"
        return f"{self.name:<58}{self.value:10.3g} {self.unit}{bound}{verdict}"


def shapes(count: int) -> list[BatchShape]:
    """So many different decode and extend shapes, in the order in which a table has them."""
    families = -(-count // (len(QUERY_LENS) * len(KV_LENS)))
    groups = [
        RequestGroup(query_len, query_len + kv_len, batch)
        for query_len in QUERY_LENS
        for batch in range(1, families + 1)
        for kv_len in KV_LENS
    ]
    return [BatchShape((group,)) for group in groups[:count]]


def tuned(folder: Path, wanted: Sequence[BatchShape]) -> tuple[Path, float]:
    """Tune ``wanted`` on the fake device; returns the table and the milliseconds a shape took."""
    fake: Any = importlib.import_module("fake_device")
    plans = {fake.DEFAULT: 100.0} | {fake.splits(n): 70.0 + 10 * n for n in (1, 2, 8)}
    model = MlaDimensions(2)
    header = Header.of(fake.ENVIRONMENT, "TORCH_MLA", model, "auto", "eager", 4096)
    workloads = tuple(Workload((Case(shape),)) for shape in wanted)
    path = folder / "table.yaml"
    job = TableJob(Setup("TORCH_MLA", model), workloads, header, path)
    reporter = TerminalReporter(Console(file=io.StringIO()))
    bench = fake.FakeBench(plans, noise=0.01)
    began = time.perf_counter()
    campaign = Campaign(bench, folder / "study", Settings(confirmation_rounds=16), reporter)
    result = campaign.run([job])
    reporter.summary()
    spent_s = time.perf_counter() - began
    assert result.failures == ()
    return path, 1000 * spent_s / len(wanted)


def questions(wanted: Sequence[BatchShape]) -> dict[str, list[dict[str, int]]]:
    """What is looked up, by how near it is to an entry."""
    dice = random.Random(0)
    groups = [dice.choice(wanted).groups[0] for _ in range(2000)]

    def near(length: int) -> int:
        return max(1, round(length * dice.uniform(0.85, 1.2)))

    def asked(query_len: int, kv_len: int, batch: int) -> dict[str, int]:
        return {"query_len": query_len, "kv_len": max(kv_len, query_len), "batch": batch}

    return {
        "exact": [asked(g.query_len, g.kv_len, g.count) for g in groups],
        "nearest": [asked(g.query_len, near(g.kv_len) + 1, near(g.count)) for g in groups],
        "miss (batch)": [asked(g.query_len, g.kv_len, g.count * 1000) for g in groups],
        "miss (KV length)": [asked(g.query_len, g.kv_len * 100, g.count) for g in groups],
    }


def look_up(table: Table, asked: Sequence[dict[str, int]]) -> None:
    for question in asked:
        table.lookup(**question)


def best_s(work: Callable[[], object], repeats: int) -> float:
    """The least seconds of several: what the machine does beside only ever adds to them."""
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return min(spent)


def tuning_figures(folder: Path, count: int) -> Iterator[Figure]:
    few = []
    for number in range(4):
        place = folder / f"few{number}"
        place.mkdir()
        few.append(tuned(place, shapes(FEW))[1])
    # The first one imports and compiles.
    at_few = statistics.median(few[1:])
    yield Figure(f"tune {FEW} shapes, a shape", at_few, "ms")
    _, at_count = tuned(folder, shapes(count))
    yield Figure(f"tune {count} shapes, a shape", at_count, "ms", MOST_SLOWDOWN * at_few)
    _, again = tuned(folder, shapes(count))
    yield Figure(f"run again with all {count} decided, a shape", again, "ms", at_few)


def reading_figures(path: Path, wanted: Sequence[BatchShape]) -> Iterator[Figure]:
    count = len(wanted)
    yield Figure(f"load {count} entries", best_s(lambda: Table.load(path), 3), "s", MOST_LOAD_S)
    show = [sys.executable, "-m", "mla_tune", "show", str(path)]
    seconds = best_s(lambda: subprocess.run(show, check=True, stdout=subprocess.DEVNULL), 3)
    yield Figure(f"mla-tune show of {count} entries, the whole command", seconds, "s", MOST_SHOW_S)
    table = Table.load(path)
    for name, asked in questions(wanted).items():
        hits = sum(table.lookup(**question).is_hit for question in asked) / len(asked)
        # In pieces shorter than what else the machine does.
        pieces = [asked[start : start + 50] for start in range(0, len(asked), 50)]
        spent_s = sum(best_s(partial(look_up, table, piece), 20) for piece in pieces)
        microseconds = 1e6 * spent_s / len(asked)
        yield Figure(f"lookup, {name} ({hits:.0%} hits)", microseconds, "us", MOST_LOOKUP_US)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--shapes", type=int, default=5000)
    parser.add_argument("--folder", type=Path, help="where a scratch folder is made and removed")
    args = parser.parse_args(arguments)
    sys.path.insert(0, str(ROOT / "tests"))
    good = True
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        folder = Path(scratch)
        reading = reading_figures(folder / "table.yaml", shapes(args.shapes))
        for figure in itertools.chain(tuning_figures(folder, args.shapes), reading):
            print(figure, flush=True)
            good = good and figure.is_good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
