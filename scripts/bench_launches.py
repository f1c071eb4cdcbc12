#!/usr/bin/env python3
"""Compare search policies over launches and splits on recordings: regret, compilations and seconds.

    python scripts/bench_launches.py --made-up
    python scripts/bench_launches.py launches.jsonl.gz --budget 60 --out docs/search-launches.md

A recording is one of every plan of a table's workloads (`--record FILE --record-rounds 16
--launches` of `mla-tune`). Each policy tunes the workloads of a table in turn, as a run does, on
the earlier half of the rounds; the later half judges. Prints a table in Markdown; --out writes it
with what it means to a file.
"""

import argparse
import concurrent.futures
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from launch_policies import compiled_as, table_policies
from made_up_launches import made_up
from mla_tune.measuring.recording import Recording
from mla_tune.plan.plan import Plan
from search_halves import Judge, choices, played

SEEN_BEST = "the best of the played rounds"
HEADS = ("policy", "tables", "regret, mean", "worst", "compiled", "share", "GPU s", "CPU s")


@dataclass(frozen=True)
class Row:
    """One policy on one table, with one seed.

    Attributes:
        policy: its name.
        regrets: of each workload.
        compiled: kernels that it needed.
        all_kernels: how many kernels the plans of the table are.
        measured_s: seconds that the samples took.
        thought_s: seconds of everything else.
    """

    policy: str
    regrets: tuple[float, ...]
    compiled: int
    all_kernels: int
    measured_s: float
    thought_s: float


def rows(recording: Recording, seed: int, budgets: Sequence[int], only: Sequence[str]) -> list[Row]:
    """Every policy on every table of ``recording``."""
    found: list[Row] = []
    recording = choices(recording)
    to_play = played(recording)
    for _, group in groupby(recording.tracks, key=lambda track: track.setup):
        tracks = list(group)
        judges = [Judge.of_later(track) for track in tracks]
        kernels = {compiled_as(plan) for track in tracks for plan in track.plans}
        for name, run in table_policies(seed, budgets).items():
            if any(part in name for part in only):
                spent = run(to_play, tracks, seed)
                regrets = _regrets(judges, spent.chosen)
                cost = (spent.compiled, len(kernels), spent.measured_s, spent.thought_s)
                found.append(Row(name, regrets, *cost))
        seen = [Judge.of_earlier(track).best for track in tracks]
        found.append(Row(SEEN_BEST, _regrets(judges, seen), len(kernels), len(kernels), 0.0, 0.0))
    return found


def _regrets(judges: Sequence[Judge], chosen: Sequence[Plan]) -> tuple[float, ...]:
    return tuple(judge.regret(plan) for judge, plan in zip(judges, chosen, strict=True))


def table(found: Sequence[Row]) -> str:
    """One line a policy, over its tables and seeds."""
    lines = [f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    for name in dict.fromkeys(row.policy for row in found):
        mine = [row for row in found if row.policy == name]
        regrets = np.concatenate([row.regrets for row in mine])
        share = np.mean([row.compiled / row.all_kernels for row in mine])
        cells = [name, f"{len(mine)}", f"{np.mean(regrets):.2%}", f"{np.max(regrets):.1%}"]
        cells += [f"{np.mean([row.compiled for row in mine]):.0f}", f"{share:.0%}"]
        cells += [
            f"{np.mean([getattr(r, of) for r in mine]):.1f}" for of in ("measured_s", "thought_s")
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


DOCUMENT = """\
# Search policies over launches and splits

Written by `scripts/bench_launches.py` from {sources}, each policy with {seeds}. Each
launch (`block_n`, `block_h`, `num_warps`, `num_stages`) with each split count is a kernel of its
own, compiled in about a second: a plan space has hundreds of them, and compiling is most of what a
table costs. A policy tunes the workloads of a table in turn, each beginning with what the one
before it ended in, on the earlier half of the recorded rounds; the later half judges.

- *Regret*: by how much the chosen plan is slower than the best one in the held-out rounds, of those
  that slow down no KV length by more than 1 %; *mean* and *worst* over the workloads.
- *Compiled*: kernels that were needed for a table, and their *share* of all.
- *GPU s*: seconds that the samples of a table took; *CPU s*: all others, which are the sampler's
  and the statistics', without compiling.
- *N plans*: of each workload, for the policies that are one of Optuna's samplers.

{table}

A run searches in two steps: the launches on three batch shapes, then the best of them on all, which
are few enough to try every plan. With `--launches all` a space has more than a hundred plans; there
the default is the Gaussian process with 60 plans, and patience. It takes about a quarter of a
second for each, which is less than compiling one. All samplers draw ten plans at random before they
learn anything, and hand what they find on one shape to the next: a few seeds say little of how far
from the best they may end.

A plan that does not fit the GPU's shared memory is in no space, and what a sampler proposes between
plans becomes the nearest one that has not been tried; so no trial is lost to either. Screening
stays ours: it pairs each sample with one of the incumbent, round by round, and drops a plan after
three. Optuna's pruners compare a trial's values with those that other trials had at the same step,
minutes earlier and perhaps at another clock; `WilcoxonPruner` pairs by step too, but with the same
old values.
"""


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("recordings", type=Path, nargs="*")
    parser.add_argument(
        "--made-up", action="store_true", help="also of a made-up kernel, one a seed"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--budget", type=int, nargs="*", default=[30, 60], help="plans of a sampler"
    )
    parser.add_argument(
        "--only", nargs="*", default=[""], help="policies with one of these in their name"
    )
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="the document to write")
    args = parser.parse_args()
    recorded = [Recording.load(path) for path in args.recordings]
    with concurrent.futures.ProcessPoolExecutor(args.jobs) as pool:
        parts = [
            pool.submit(rows, recording, seed, args.budget, args.only)
            for seed in range(args.seeds)
            for recording in (*recorded, *([made_up(seed)] if args.made_up else []))
        ]
        written = table([row for part in parts for row in part.result()])
    print(written)
    if args.out is not None:
        sources = [f"`{path.name}`" for path in args.recordings]
        sources += ["a made-up kernel (`scripts/made_up_launches.py`)"] if args.made_up else []
        seeds = "one seed" if args.seeds == 1 else f"{args.seeds} seeds"
        args.out.write_text(
            DOCUMENT.format(sources=" and ".join(sources), seeds=seeds, table=written)
        )


if __name__ == "__main__":
    main()
