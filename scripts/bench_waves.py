#!/usr/bin/env python3
"""What the model of waves would have chosen on recordings, where it was not told the answer.

    python scripts/bench_waves.py tests/data/h200_16_heads.jsonl.gz

Fits on a third of the points of each (backend, engine mode), drawn by seed, and lets it choose for
the others; beside it the rule that takes the nearest entry within a factor. A plan's truth is the
trimmed mean of all its recorded rounds. Prints the tables of docs/how-it-decides.md.
"""

import argparse
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from scipy import stats

from mla_tune.environment import Environment
from mla_tune.measuring.recording import Recording, Track
from mla_tune.plan.cut import CUTTERS, Cutter
from mla_tune.plan.plan import Plan
from mla_tune.registry import get_backend
from mla_tune.shapes import MlaDimensions, RequestGroup
from mla_tune.table.waves import Answer, Length, ProvenModel
from mla_tune.tuning.wave_fit import Point, fit, prove, proven

GATE = 1.01
"""The gain that a plan must have to be published."""

WITHIN = 1.5
"""By which factor an entry could be off in batch size and KV length, when it spoke for others."""

Rule = Callable[[Point], Answer]


@dataclass(frozen=True)
class Result:
    """What a rule did with one held-out point; 0.01 is 1 %.

    Attributes:
        outcome: ``plan``, ``default`` or ``miss``.
        regret: latency of its choice over the best plan's, less one.
        loss: the same over the default's; below zero where it gained.
    """

    outcome: str
    regret: float
    loss: float


def expected_us(rounds: Iterable[Sequence[float]], case: int) -> float:
    """The latency of one case of a plan, from all its rounds."""
    return float(stats.trim_mean([cases[case] for cases in rounds], 0.1))


def uniform(track: Track) -> Iterator[tuple[int, RequestGroup]]:
    """The cases of a track whose requests are all alike."""
    for case, found in enumerate(track.workload.cases):
        if len(found.shape.groups) == 1:
            yield case, found.shape.groups[0]


def points(tracks: Iterable[Track]) -> list[Point]:
    """The single-token batches of ``tracks``, by how splits move their latency."""
    found = []
    for track in tracks:
        for case, group in uniform(track):
            values = {
                splits: expected_us(rounds, case)
                for plan, rounds in track.rounds.items()
                if (splits := plan.number("num_kv_splits")) is not None
            }
            default = track.plans[0].number("num_kv_splits")
            if group.query_len == 1 and default in values and len(values) > 1:
                found.append(Point(group.count, group.kv_len, default, values))
    return sorted(found, key=lambda point: (point.batch, point.kv_len))


def drawn(points: Sequence[Point], seed: int, with_corners: bool) -> list[Point]:
    """A third of the points, as a table might hold them; with the corners of their grid or not."""
    batches = {point.batch for point in points}
    kv_lens = {point.kv_len for point in points}
    ends = [(min(batches), max(batches)), (min(kv_lens), max(kv_lens))]
    corners = [
        point
        for point in points
        if with_corners and point.batch in ends[0] and point.kv_len in ends[1]
    ]
    others = [point for point in points if point not in corners]
    more = random.Random(seed).sample(others, max(0, len(points) // 3 - len(corners)))
    return [point for point in points if point in corners or point in more]


def nearest(known: Sequence[Point]) -> Rule:
    """What tables said before they had a model: the nearest entry's plan, within `WITHIN`."""

    def rule(point: Point) -> Answer:
        off, entry = min(
            ((max(_ratio(point.batch, e.batch), _ratio(point.kv_len, e.kv_len)), e) for e in known),
            key=lambda found: found[0],
        )
        if off > WITHIN:
            return Answer("miss")
        gains = entry.latency_us[entry.default] / entry.latency_us[entry.best] > GATE
        plan = Plan(num_kv_splits=entry.best)
        return Answer("plan", plan) if gains else Answer("default")

    return rule


def _ratio(one: float, other: float) -> float:
    return max(one / other, other / one)


def waves(model: ProvenModel) -> Rule:
    """What the model answers."""
    return lambda point: model.answer(point.batch, [Length(point.kv_len, [point.default])])


def judged(rule: Rule, held_out: Iterable[Point]) -> list[Result]:
    """What a rule does with points that it does not know."""
    results = []
    for point in held_out:
        answer = rule(point)
        value = point.default if answer.value is None else answer.value
        us = point.latency_us.get(value)
        if us is None:  # a neighbour's, which this KV length cannot have
            us = point.latency_us[max(point.latency_us)]
        best_us, default_us = point.latency_us[point.best], point.latency_us[point.default]
        results.append(Result(answer.outcome, us / best_us - 1, us / default_us - 1))
    return results


def cutter(environment: Environment, backend: str, model: MlaDimensions) -> Cutter:
    """How the decode kernel of ``backend`` cuts a batch."""
    cut = get_backend(backend).cut
    assert cut is not None
    return CUTTERS[cut](environment.sm_count, model.num_q_heads)


@dataclass(frozen=True)
class Row:
    """The results of one rule on one (backend, engine mode), all seeds together."""

    what: str
    rule: str
    results: Sequence[Result]

    def __str__(self) -> str:
        shares = [
            np.mean([result.outcome == outcome for result in self.results])
            for outcome in ("plan", "default", "miss")
        ]
        plans = [result for result in self.results if result.outcome == "plan"]
        regrets = [result.regret for result in plans]
        slower = [result.loss for result in plans if result.loss > 0]
        gain = math.exp(-np.mean([math.log1p(result.loss) for result in self.results]))
        cells = [self.what, self.rule, *(f"{share:.0%}" for share in shares)]
        cells += [f"{np.mean(regrets):.2%}", f"{max(regrets):.1%}"] if plans else ["", ""]
        cells += [f"{len(slower)} of {len(plans)}", f"{max(slower, default=0.0):.1%}"]
        return f"| {' | '.join(cells)} | {gain:.3f}× |"


def compared(recording: Recording, tracks: Sequence[Track], seeds: int) -> Iterator[Row]:
    """The rules against each other on one (backend, engine mode)."""
    setup = tracks[0].setup
    found = points(tracks)
    cut = cutter(recording.environment, setup.backend, setup.model)
    for with_corners in (False, True):
        results: dict[str, list[Result]] = {}
        for seed in range(seeds):
            known = drawn(found, seed, with_corners)
            rules = {"nearest": nearest(known)}
            if (model := proven(known, cut, GATE)) is not None:
                rules["waves"] = waves(model[0])
            held_out = [point for point in found if point not in known]
            for name, rule in rules.items():
                results.setdefault(name, []).extend(judged(rule, held_out))
        what = f"{setup.backend}, {setup.mode}{', with corners' if with_corners else ''}"
        for name, judgements in results.items():
            yield Row(what, name, judgements)


def left_out(recording: Recording, tracks: Sequence[Track]) -> str:
    """The row of one (backend, engine mode) among the proofs, all its points in the table."""
    setup = tracks[0].setup
    found = points(tracks)
    cut = cutter(recording.environment, setup.backend, setup.model)
    proof, model = prove(found, cut), fit(found, cut)
    error = proof.error
    let_through = [
        point for point in proof.left_out if point.gain / (1 + error.at(point.latency_us)) > GATE
    ]
    slower = [point for point in let_through if point.loss > 0]
    return (
        f"| {setup.backend}, {setup.mode} | {len(found)} | {model.slots} | "
        f"{error.share:.1%} + {error.us:.1f} µs | "
        f"{proof.regret:.2%} | {proof.worst_regret:.1%} | {len(slower)} of {len(let_through)} |"
    )


def report(recording: Recording, seeds: int) -> str:
    """All tables."""
    groups = {
        key: list(tracks)
        for key, tracks in groupby(sorted(recording.tracks, key=_kind), key=_kind)
        if get_backend(key[0]).cut is not None
    }
    lines = [
        "| points | rule | plan | default | miss | regret | worst | slower | by | gain |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for tracks in groups.values():
        lines += map(str, compared(recording, tracks, seeds))
    lines += [
        "",
        "| one left out | points | slots | error | regret | worst | slower |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [left_out(recording, tracks) for tracks in groups.values()]
    return "\n".join(lines)


def _kind(track: Track) -> tuple[str, str]:
    return track.setup.backend, track.setup.mode


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("recording", type=Path)
    parser.add_argument("--seeds", type=int, default=50)
    args = parser.parse_args()
    print(report(Recording.load(args.recording), args.seeds))


if __name__ == "__main__":
    main()
