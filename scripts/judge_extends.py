#!/usr/bin/env python3
"""What the model of both paths says of recorded extends, each left out of its fit in turn.

    python scripts/judge_extends.py tests/data/h100/extends_flash_attn_mla_{grid,random}.jsonl.gz

Prints the row of a table in docs/h100.md, and the gains of the plans that it would answer.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from bench_waves import GATE, Result, Row, cutter, expected_us
from mla_tune.measuring.recording import Recording, Track
from mla_tune.plan.cut import Cutter
from mla_tune.plan.plan import UNTUNED
from mla_tune.table.waves import Answer
from mla_tune.tuning.between import Trials
from mla_tune.tuning.longer_fit import LongerPoint, prove, with_choice
from mla_tune.tuning.study import Outcome

THRESHOLD = 512
"""FLASH_ATTN_MLA's own."""


def extends(tracks: Iterable[Track]) -> list[LongerPoint]:
    """The extends of ``tracks``."""
    trials = (
        Trials(
            track.workload,
            track.plans[0],
            [Outcome(plan, expected_us(rounds, 0)) for plan, rounds in track.rounds.items()],
        )
        for track in tracks
    )
    return [point for each in trials if (point := each.longer) is not None]


def left_out(points: list[LongerPoint], cut: Cutter) -> list[Result]:
    """What is answered for each extend that has a choice, by a fit of the others.

    With the error of all, which a table's model has.
    """
    proof = prove(points, with_choice(points, THRESHOLD), cut)
    error = proof.error
    results = []
    for point in proof.left_out:
        answer = Answer.of(UNTUNED, point.gain, error.at(point.latency_us), GATE)
        # The default is as far behind the best as the choice is, and what the choice gains.
        untuned = (1 + point.regret) / (1 + point.loss) - 1
        is_plan = answer.outcome == "plan"
        regret, loss = (point.regret, point.loss) if is_plan else (untuned, 0.0)
        results.append(Result(answer.outcome, regret, loss))
    return results


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("recordings", type=Path, nargs="+", help="of one backend on one GPU")
    recordings = [Recording.load(path) for path in parser.parse_args().recordings]
    points = [point for recording in recordings for point in extends(recording.tracks)]
    setup = recordings[0].tracks[0].setup
    results = left_out(points, cutter(recordings[0].environment, setup.backend, setup.model))
    print(Row(setup.backend, f"{len(results)} extends", results))
    gains = sorted(1 / (1 + result.loss) for result in results if result.outcome == "plan")
    print("plans:", ", ".join(f"{gain:.2f}×" for gain in gains))


if __name__ == "__main__":
    main()
