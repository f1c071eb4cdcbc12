#!/usr/bin/env python3
"""How the model of waves, fitted on one recording, chooses for the points of another.

    python scripts/judge_waves.py tests/data/h100/eager_triton_mla_{grid,random}.jsonl.gz

The two are of one backend on one GPU, each recorded by a process of its own. Prints a row of the
table in docs/h100.md for the rule that takes the nearest entry, and one for the model; with
--points a row for so many points of the first.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench_waves import GATE, Row, cutter, judged, nearest, points, waves
from mla_tune.measuring.recording import Recording
from mla_tune.shapes.eager import spread
from mla_tune.tuning.wave_fit import Point, proven


def rows(fitted: Recording, judge: Recording) -> Iterator[Row]:
    """The results of both rules, which know ``fitted``, on the points of ``judge``."""
    track = fitted.tracks[0]
    backend, known = track.setup.backend, points(fitted.tracks)
    rules = {"nearest": nearest(known)}
    cut = cutter(fitted.environment, backend, track.setup.model)
    if (model := proven(known, cut, GATE)) is not None:
        rules["waves"] = waves(model[0])
    for name, rule in rules.items():
        yield Row(backend, name, judged(rule, points(judge.tracks)))


def fewer(fitted: Recording, judge: Recording, counts: Sequence[int]) -> Iterator[str]:
    """The same for a model of so many points of ``fitted``, and what their samples took."""
    track = fitted.tracks[0]
    known = {(point.batch, point.kv_len): point for point in points(fitted.tracks)}
    cut = cutter(fitted.environment, track.setup.backend, track.setup.model)
    for count in counts:
        chosen = [known[place] for place in spread(list(known), count)]
        model = proven(chosen, cut, GATE)
        if model is not None:
            row = Row(
                track.setup.backend,
                f"{count} points",
                judged(waves(model[0]), points(judge.tracks)),
            )
            yield f"{row} {seconds(fitted, chosen):.1f} s |"


def seconds(recording: Recording, chosen: Sequence[Point]) -> float:
    """What all samples of the ``chosen`` points took."""
    places = {(point.batch, point.kv_len) for point in chosen}
    return sum(
        sum(map(math.fsum, rounds)) / 1e6
        for track in recording.tracks
        for group in track.workload.shapes[0].groups
        if (group.count, group.kv_len) in places
        for rounds in track.rounds.values()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fitted", type=Path, help="recording to fit on")
    parser.add_argument("judge", type=Path, help="recording to choose for")
    parser.add_argument("--points", type=int, nargs="+", help="how many of the first to fit on")
    arguments = parser.parse_args()
    fitted, judge = Recording.load(arguments.fitted), Recording.load(arguments.judge)
    for row in fewer(fitted, judge, arguments.points) if arguments.points else rows(fitted, judge):
        print(row)


if __name__ == "__main__":
    main()
