"""Workloads in which nothing is to be won: every plan has the default's own rounds."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mla_tune.measuring.recording import RecordedBench, Recording
from mla_tune.plan.plan import Plan
from mla_tune.tuning.study import Policy
from search_halves import choices, played
from search_tunes import label, tune


def alike(recording: Recording, seed: int) -> Recording:
    """Give every plan the default's rounds, each in an order of its own.

    What plans of one round share is lost by that, so that they differ more than real ones.
    """
    draw = random.Random(seed)
    tracks = []
    for track in recording.tracks:
        own = track.rounds[track.plans[0]]
        rounds: dict[Plan, Sequence[tuple[float, ...]]] = {
            plan: draw.sample(list(own), len(own)) for plan in track.plans
        }
        tracks.append(replace(track, rounds=rounds))
    return replace(recording, tracks=tuple(tracks))


def published_alike(path: Path, seed: int) -> list[tuple[str, bool]]:
    """For each workload of a recording, its table and whether a plan was published: wrongly."""
    recording = alike(played(choices(Recording.load(path))), seed)
    bench = RecordedBench(recording, seed)
    found = []
    for track in recording.tracks:
        bench.open(track.setup)
        entry, _, _ = tune(bench, track, Policy(), None)
        found.append((label(recording, track), bool(entry.plan)))
    return found
