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
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.registry import get_backend
from mla_tune.shapes import BatchShape, MlaDimensions, RequestGroup
from mla_tune.table import Entry, Header, Table
from mla_tune.table.waves import Answer, Length, ProvenModel
from mla_tune.tuning.wave_fit import Point, fit, prove, proven
from threshold_model import Extend, Paths

GATE = 1.01
"""The gain that a plan must have to be published."""

OWN_THRESHOLD = {"FLASH_ATTN_MLA": 512, "FLASHMLA": 128, "TRITON_MLA": 1}
"""vLLM's own, which a plan that names none has."""

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


def paths(recording: Recording, backend: str) -> Paths:
    """What extends of ``backend`` take on either path in eager mode, with its own splits.

    The prefill path is the same for all backends, so that its latency is taken from TRITON_MLA
    where ``backend`` was not measured on it.
    """
    decode_us: dict[Extend, float] = {}
    prefill_us: dict[Extend, float] = {}
    heads = 1
    for track in recording.tracks:
        name = track.setup.backend
        if track.setup.mode != "eager" or name not in {backend, "TRITON_MLA"}:
            continue
        for case, group in uniform(track):
            extend = Extend(group.count, group.query_len, group.kv_len)
            if group.query_len == 1:
                continue
            heads = track.setup.model.num_q_heads
            default = track.plans[0].number("num_kv_splits")
            for plan, rounds in track.rounds.items():
                threshold = plan.number("reorder_batch_threshold") or OWN_THRESHOLD[name]
                if group.query_len > threshold:
                    if name == backend:
                        prefill_us[extend] = expected_us(rounds, case)
                    else:
                        prefill_us.setdefault(extend, expected_us(rounds, case))
                elif name == backend and plan.get("num_kv_splits") in {None, default}:
                    decode_us[extend] = expected_us(rounds, case)
    return Paths(decode_us, prefill_us, heads, recording.environment.sm_count)


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


def nearest(known: Sequence[Point], header: Header) -> Rule:
    """The nearest entry within the usual factor, of a table that holds the best of each point."""
    entries = []
    for point in known:
        default_us, best_us = point.latency_us[point.default], point.latency_us[point.best]
        plan = Plan(num_kv_splits=point.best) if default_us / best_us > GATE else UNTUNED
        shape = str(BatchShape.of([RequestGroup(1, point.kv_len, point.batch)]))
        entries.append(Entry(shape=shape, plan=plan, latency_us=best_us, default_us=default_us))
    table = Table(header, tuple(entries))

    def rule(point: Point) -> Answer:
        found = table.lookup(batch=point.batch, kv_len=point.kv_len)
        splits = found.plan.number("num_kv_splits")
        if splits is None:
            return Answer("default" if found.is_hit else "miss", None)
        return Answer("plan", splits)

    return rule


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


def header(environment: Environment, track: Track) -> Header:
    """The header of an eager table of what was recorded: each KV length is an entry of its own."""
    setup = track.setup
    return Header.of(
        environment,
        setup.backend,
        setup.model,
        setup.kv_cache_dtype,
        "eager",
        setup.max_model_len,
    )


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
    head = header(recording.environment, tracks[0])
    for with_corners in (False, True):
        results: dict[str, list[Result]] = {}
        for seed in range(seeds):
            known = drawn(found, seed, with_corners)
            rules = {"nearest": nearest(known, head)}
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


def thresholds(recording: Recording, backend: str) -> str:
    """The row of one backend among the choices of a path, each extend left out in turn."""
    measured = paths(recording, backend)
    right, regrets, errors = 0, [], []
    for extend in measured.both:
        real_us = measured.decode_us[extend], measured.prefill_us[extend]
        predicted_us = measured.predicted_us(extend)
        chosen = predicted_us.index(min(predicted_us))
        right += real_us[chosen] == min(real_us)
        regrets.append(real_us[chosen] / min(real_us) - 1)
        ratios = predicted_us[0] / predicted_us[1], real_us[0] / real_us[1]
        errors.append(math.exp(abs(math.log(ratios[0] / ratios[1]))) - 1)
    return (
        f"| {backend} | {len(measured.both)} | {right} | {max(regrets):.1%} | "
        f"{np.median(errors):.0%} | {max(errors):.0%} |"
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
    lines += [
        "",
        "| extends, one left out | measured on both paths | path right | worst regret | error, "
        "median | worst |",
        "|---|---|---|---|---|---|",
    ]
    lines += [thresholds(recording, backend) for backend in ("FLASH_ATTN_MLA", "FLASHMLA")]
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
