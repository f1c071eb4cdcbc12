#!/usr/bin/env python3
"""How the model of waves, fitted on one recording, chooses for the points of another.

    python scripts/judge_waves.py tests/data/h100/eager_triton_mla_{grid,random}.jsonl.gz

The two are of one backend on one GPU, each recorded by a process of its own. Prints a row of the
table in docs/h100.md for the rule that takes the nearest entry, and one for the model.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from bench_waves import GATE, Row, cutter, header, judged, nearest, points, waves
from mla_tune.measuring.recording import Recording
from mla_tune.tuning.wave_fit import proven


def rows(fitted: Recording, judge: Recording) -> Iterator[Row]:
    """The results of both rules, which know ``fitted``, on the points of ``judge``."""
    track = fitted.tracks[0]
    backend, known = track.setup.backend, points(fitted.tracks)
    rules = {"nearest": nearest(known, header(fitted.environment, track))}
    cut = cutter(fitted.environment, backend, track.setup.model)
    if (model := proven(known, cut, GATE)) is not None:
        rules["waves"] = waves(model[0])
    for name, rule in rules.items():
        yield Row(backend, name, judged(rule, points(judge.tracks)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fitted", type=Path, help="recording to fit on")
    parser.add_argument("judge", type=Path, help="recording to choose for")
    arguments = parser.parse_args()
    for row in rows(Recording.load(arguments.fitted), Recording.load(arguments.judge)):
        print(row)


if __name__ == "__main__":
    main()
