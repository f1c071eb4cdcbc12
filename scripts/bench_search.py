#!/usr/bin/env python3
"""Compare search policies on recordings: regret, measurements spent, wrong publications.

    python scripts/bench_search.py tests/data/*.gz --seeds 50 --out docs

Every policy runs through the real tuner and Optuna, on a bench that plays recorded rounds back.
The truth about a plan is the trimmed mean of all its recorded rounds, which for the noise of short
kernels is known to a third better than the median. Writes search.md and search.png.
"""

import argparse
import concurrent.futures
import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import stats

from mla_tune.measuring.recording import RecordedBench, Recording, Track
from mla_tune.plan.plan import Plan
from mla_tune.table import Entry
from mla_tune.tuning.quarantine import Quarantine, Ward
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.study import Journal, Policy
from mla_tune.tuning.tuner import Tuner

SAMPLED_SHARE = 0.5
"""Of the plans a sampler may try: at all of them it would be an enumeration with repeats."""

NULL = "enumerate, all plans alike"


def policies(num_plans: int, seed: int) -> dict[str, Policy]:
    """The policies to compare for a space of ``num_plans``."""
    budget = max(2, round(SAMPLED_SHARE * num_plans))
    return {
        "enumerate": Policy(),
        "enumerate, ranked": Policy(),
        "ranked, patience 10": Policy(patience=10),
        "TPE, half": Policy("tpe", budget=budget, seed=seed),
        "GP, half": Policy("gp", budget=budget, seed=seed),
        "random, half": Policy("random", budget=budget, seed=seed),
    }


@dataclass(frozen=True)
class Result:
    """One tune of one track."""

    policy: str
    regret: float
    spent_share: float
    published: bool
    wrong: bool


def truth(track: Track) -> dict[Plan, float]:
    """Expected latency in microseconds of every plan that was recorded, from all its rounds."""
    shares = np.asarray(track.workload.shares())
    return {
        plan: float(stats.trim_mean(np.asarray(rounds) @ shares, 0.1))
        for plan, rounds in track.rounds.items()
    }


def tune(recording: Recording, track: Track, name: str, seed: int, hint: Entry | None) -> Result:
    """Tune one track once and judge the verdict by the truth."""
    known = truth(track)
    bench = RecordedBench(recording, seed)
    bench.open(track.setup)
    setup = track.setup
    with tempfile.TemporaryDirectory() as scratch:
        ward = Ward(setup.backend, "", {}, setup.kv_cache_dtype, setup.mode, {}, "")
        tuner = Tuner(
            bench,
            Journal.in_memory(),
            Quarantine(Path(scratch) / "quarantine.yaml"),
            ward,
            Settings(policy=policies(len(track.plans), seed)[name], confirmation_s=math.inf),
        )
        entry = tuner.tune(track.workload, neighbour=hint if "ranked" in name else None)
    default = track.plans[0]
    chosen = entry.plan or default
    exhaustive = len(known) * Settings().trial_rounds
    return Result(
        policy=name,
        regret=known[chosen] / min(known.values()) - 1,
        spent_share=bench.rounds_spent / exhaustive,
        published=bool(entry.plan),
        wrong=bool(entry.plan) and default in known and known[chosen] >= known[default],
    )


def null_case(recording: Recording, seed: int) -> Recording:
    """Give every plan the default's rounds, each in an order of its own: nothing is to be won."""
    draw = random.Random(seed)
    tracks = []
    for track in recording.tracks:
        own = track.rounds.get(track.plans[0])
        if own:
            alike: dict[Plan, Sequence[tuple[float, ...]]] = {
                plan: draw.sample(own, len(own)) for plan in track.rounds
            }
            tracks.append(replace(track, rounds=alike, failures={}))
    return replace(recording, tracks=tuple(tracks))


def tune_seed(paths: Sequence[Path], seed: int, every: int) -> list[Result]:
    """All tracks, all policies, one seed."""
    results = []
    for path in paths:
        recording = Recording.load(path)
        tracks = recording.tracks[:: max(1, every)]
        for name in policies(2, 0):
            hint: Entry | None = None
            for track in tracks:
                results.append(tune(recording, track, name, seed, hint))
                hint = _best_entry(track)
        alike = null_case(replace(recording, tracks=tuple(tracks)), seed)
        for track in alike.tracks:
            result = tune(alike, track, "enumerate", seed, None)
            results.append(replace(result, policy=NULL, wrong=result.published))
    return results


def _best_entry(track: Track) -> Entry:
    """What a neighbour's verdict would say."""
    known = truth(track)
    best = min(known, key=lambda plan: known[plan])
    return Entry(
        shape=str(track.workload), plan=best, latency_us=known[best], default_us=max(known.values())
    )


def report(results: Sequence[Result], out: Path, what: str) -> None:
    """Write the table and the plot."""
    names = list(dict.fromkeys(result.policy for result in results))
    lines = [
        "# Search policies compared on recordings",
        "",
        f"{what}. Written by `scripts/bench_search.py`.",
        "",
        "- *Regret*: by how much the published plan's true latency is above the best plan's.",
        "- *Spent*: measured rounds, confirmation included, over those of measuring every plan",
        "  eight times.",
        "- *Wrong*: published plans that are slower than the default.",
        "",
        "In the last row every plan plays back the default's own rounds, shuffled: each plan that",
        "is published there is wrong.",
        "",
        "| policy | tunes | regret, mean | p99 | worst | spent | published | wrong |",
        "|---|---|---|---|---|---|---|---|",
    ]
    regrets = {}
    for name in names:
        mine = [result for result in results if result.policy == name]
        regret = np.array([result.regret for result in mine])
        if name != NULL:
            regrets[name] = regret
        mean = math.expm1(np.log1p(regret).mean())
        lines.append(
            f"| {name} | {len(mine)} | {mean:.3%} | {np.quantile(regret, 0.99):.2%} | "
            f"{regret.max():.2%} | {np.mean([r.spent_share for r in mine]):.2f} | "
            f"{np.mean([r.published for r in mine]):.0%} | {sum(r.wrong for r in mine)} |"
        )
    lines += ["", "![Share of tunes by regret](search.png)", ""]
    out.mkdir(parents=True, exist_ok=True)
    (out / "search.md").write_text("\n".join(lines))
    print("\n".join(lines))
    plot(regrets, out / "search.png")


def plot(regrets: dict[str, "np.ndarray[tuple[int], np.dtype[np.float64]]"], path: Path) -> None:
    """Draw the share of tunes whose regret is above a value."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name, regret in regrets.items():
        ordered = np.sort(regret)[::-1] * 100
        axes.step(
            np.maximum(ordered, 1e-3), np.arange(1, len(ordered) + 1) / len(ordered), label=name
        )
    axes.set(xscale="log", yscale="log", xlabel="regret, %", ylabel="share of tunes above it")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--every", type=int, default=1, help="take each N-th recorded workload")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    args = parser.parse_args()
    with concurrent.futures.ProcessPoolExecutor(args.jobs) as pool:
        parts = [
            pool.submit(tune_seed, args.recordings, seed, args.every) for seed in range(args.seeds)
        ]
        results = [result for part in parts for result in part.result()]
    names = ", ".join(path.name for path in args.recordings)
    report(results, args.out, f"{args.seeds} seeds over {names}")


if __name__ == "__main__":
    main()
