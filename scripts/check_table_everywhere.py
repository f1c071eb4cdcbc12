#!/usr/bin/env python3
r"""Whether a graph table's answers are never slower than the default, wherever it was recorded.

    mla-tune --backend TRITON_MLA --shapes examples/graph_all_sizes.yaml --out tables
    mla-tune --backend TRITON_MLA --shapes examples/graph_exhaustive.yaml --max-tokens 20480k \
        --out scratch --record everywhere.jsonl.gz --record-rounds 10
    python scripts/check_table_everywhere.py tables/TABLE.yaml everywhere.jsonl.gz --json out.json

The recording has every plan, and another process made it than the one that tuned the table. Each
row is one KV length of one captured size, or a ragged batch of it: what the plugin freezes into the
graph, its gain over the default with a 95 % interval, how far it is behind the best single plan
that the rule allows for that size (no row slower than within 1 %), and behind the fastest plan for
that row alone. The best plan is the best of the same samples that judge it, so that a regret is a
little too large.

A regret holds the publish gate too: a table says the default below a gain of 1.01.

Exits 1 where an answer is slower than 0.99 times the default, or was not recorded. Where the
default itself does not run, there is nothing to compare with, which is said.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table as Grid

from mla_tune.errors import MlaTuneError
from mla_tune.measuring.recording import Recording
from mla_tune.plan.plan import Plan
from mla_tune.tuning.decide import SLOWEST_CASE
from table_on_recording import PointVerdict, SizeVerdict, Weighted, judged


@dataclass(frozen=True)
class Regret:
    """Over captured sizes: what the table gains in expected latency, and what it leaves.

    Gains are geometric means; a regret of 0.01 is 1 %. ``sizes`` counts those that have weights.
    """

    sizes: int
    gain: float
    allowed_gain: float
    mean: float
    worst: float

    @classmethod
    def of(cls, found: Sequence[Weighted]) -> "Regret | None":
        if not found:
            return None
        regrets = [each.regret for each in found]
        return cls(
            sizes=len(found),
            gain=geometric_mean([each.gain for each in found]),
            allowed_gain=geometric_mean([each.allowed_gain for each in found]),
            mean=float(np.mean(regrets)),
            worst=max(regrets),
        )


@dataclass(frozen=True)
class Summary:
    """All points together.

    ``slower`` and ``unknown`` name what the table fails by; ``no_default`` the sizes whose default
    does not run, ``left_alone`` those that the engine runs untuned, by reason.
    """

    points: int
    answered: int
    worst: float
    gain: float
    allowed_gain: float
    uniform: Regret | None
    served: Regret | None
    slower: tuple[str, ...]
    unknown: tuple[str, ...]
    no_default: tuple[str, ...]
    left_alone: tuple[str, ...]

    @classmethod
    def of(cls, sizes: Sequence[SizeVerdict]) -> "Summary":
        points = [(size, point) for size in sizes for point in size.points]
        gains = [point.speedup.median for _, point in points]
        return cls(
            points=len(points),
            answered=sum(size.answer.outcome == "hit" for size, _ in points),
            worst=min(gains, default=math.nan),
            gain=geometric_mean(gains),
            allowed_gain=geometric_mean([point.allowed_gain for _, point in points]),
            uniform=Regret.of([size.uniform for size in sizes if size.uniform is not None]),
            served=Regret.of([size.served for size in sizes if size.served is not None]),
            slower=tuple(_slower(size, point) for size, point in points if not point.holds),
            unknown=tuple(f"{name(size)}: {size.plan}" for size in sizes if size.is_unknown),
            no_default=tuple(
                f"{name(size)}: {size.no_default}" for size in sizes if size.no_default
            ),
            left_alone=_left_alone(sizes),
        )

    @property
    def is_good(self) -> bool:
        return not self.slower and not self.unknown


def _left_alone(sizes: Sequence[SizeVerdict]) -> tuple[str, ...]:
    by_reason: dict[str, list[str]] = {}
    for size in sizes:
        if size.answer.outcome != "hit":
            by_reason.setdefault(size.answer.reason, []).append(name(size))
    return tuple(f"{reason}: {', '.join(names)}" for reason, names in by_reason.items())


def geometric_mean(ratios: Sequence[float]) -> float:
    return math.exp(np.mean(np.log(ratios))) if ratios else math.nan


def name(size: SizeVerdict) -> str:
    """A captured size as the start of a batch spec: ``32q1``."""
    return f"{size.group.count}q{size.group.query_len}"


def told(plan: Plan) -> str:
    return str(plan) if plan else "default"


def _slower(size: SizeVerdict, point: PointVerdict) -> str:
    return f"{point.shape}: {told(size.plan)} is {point.speedup} as fast as the default"


COLUMNS: dict[str, Callable[[SizeVerdict, PointVerdict], str]] = {
    "shape": lambda _, point: str(point.shape),
    "answer": lambda size, _: size.answer.outcome,
    "plan": lambda size, _: told(size.plan),
    "speed-up (95 %)": lambda _, point: str(point.speedup),
    "holds": lambda _, point: "yes" if point.holds else "NO",
    "best allowed": lambda _, point: f"{told(point.allowed)} {point.allowed_gain:.2f}×",
    "regret": lambda _, point: f"{point.regret:.1%}",
    "fastest here": lambda _, point: f"{told(point.fastest)} {point.fastest_gain:.2f}×",
    "regret alone": lambda _, point: f"{point.regret_alone:.1%}",
}


def grid(sizes: Sequence[SizeVerdict]) -> Grid:
    """A row a point."""
    table = Grid(*COLUMNS)
    for size in sizes:
        for point in size.points:
            cells = [cell(size, point) for cell in COLUMNS.values()]
            table.add_row(*cells, style=None if point.holds else "red")
        table.add_section()
    return table


def lines(summary: Summary) -> Iterator[str]:
    """The summary, and each failure in a line."""
    yield (
        f"{summary.points} points, {summary.answered} answered; worst {summary.worst:.3f}×; "
        f"geometric mean {summary.gain:.3f}×, best allowed {summary.allowed_gain:.3f}×"
    )
    for what, regret in (("the table's weights", summary.served), ("uniform", summary.uniform)):
        if regret is not None:
            yield (
                f"{what}, {regret.sizes} sizes: gain {regret.gain:.3f}×, best allowed "
                f"{regret.allowed_gain:.3f}×, regret {regret.mean:.2%}, worst {regret.worst:.1%}"
            )
    for what in summary.left_alone:
        yield f"default, no answer: {what}"
    for what in summary.no_default:
        yield f"no default to compare with: {what}"
    for what in summary.unknown:
        yield f"NOT RECORDED: {what}"
    for what in summary.slower:
        yield f"SLOWER than {SLOWEST_CASE}×: {what}"


def as_data(sizes: Sequence[SizeVerdict], summary: Summary) -> dict[str, Any]:
    """What --json holds."""
    return {
        "summary": asdict(summary),
        "sizes": [
            {
                "size": name(size),
                "answer": size.answer.outcome,
                "reason": size.answer.reason,
                "plan": dict(size.plan),
                "served": _weighted(size.served),
                "uniform": _weighted(size.uniform),
                "points": list(map(_point, size.points)),
            }
            for size in sizes
        ],
    }


def _weighted(weighted: Weighted | None) -> dict[str, Any] | None:
    if weighted is None:
        return None
    plain = {"gain": weighted.gain, "allowed_gain": weighted.allowed_gain}
    return {**plain, "allowed": dict(weighted.allowed), "regret": weighted.regret}


def _point(point: PointVerdict) -> dict[str, Any]:
    return {
        "shape": str(point.shape),
        "kv_len": point.shape.max_kv_len,
        "speedup": point.speedup.model_dump(),
        "holds": point.holds,
        "allowed": dict(point.allowed),
        "allowed_gain": point.allowed_gain,
        "regret": point.regret,
        "fastest": dict(point.fastest),
        "fastest_gain": point.fastest_gain,
        "regret_alone": point.regret_alone,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("recording", type=Path)
    parser.add_argument(
        "--unguarded",
        action="store_true",
        help="judge also what engines leave alone without MLA_TUNE_UNGUARDED=1",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures there")
    given = parser.parse_args(arguments)
    try:
        recording = Recording.load(given.recording)
        sizes = judged(given.table, recording, unguarded=given.unguarded)
    except MlaTuneError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    summary = Summary.of(sizes)
    # A pipe or a file has no width to fit into.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(grid(sizes))
    for line in (*recording.notices, *lines(summary)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if given.json is not None:
        given.json.write_text(json.dumps(as_data(sizes, summary), indent=1), encoding="utf-8")
    return 0 if summary.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
