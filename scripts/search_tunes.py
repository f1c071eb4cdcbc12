"""Tunes of recorded workloads on the earlier half of their rounds, judged by the later half."""

import math
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from mla_tune.measuring.recording import RecordedBench, Recording, Track
from mla_tune.plan.plan import Plan
from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.tuning.observers import SilentObserver
from mla_tune.tuning.process_spread import MEASURED_SPREAD
from mla_tune.tuning.quarantine import Quarantine, Ward
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.study import Journal, Policy
from mla_tune.tuning.tuner import Tuner
from search_halves import Judge, choices, played
from search_policies import AS_A_RUN, policies

NOTHING = "the default, always"
SEEN_BEST = "the best of the played rounds"


@dataclass(frozen=True)
class Result:
    """What became of one workload.

    Attributes:
        recording: the part of the recordings that it is from.
        policy: who chose.
        num_plans: the size of its space.
        regret: latency of the choice over the best plan's, less one.
        loss: the same over the default's.
        slows_a_length: whether it is too slow for some KV length.
        is_plan: whether another than the default was chosen.
        screened_share: rounds measured until the confirmation, over those of measuring every plan
            eight times.
        spent_share: the same with the confirmation.
        moved: by how much a plan's latency differs between the halves: the plans' median.
        played_rounds: how many a plan has that the tune may draw from.
    """

    recording: str
    policy: str
    num_plans: int
    regret: float
    loss: float
    slows_a_length: bool
    is_plan: bool
    screened_share: float
    spent_share: float
    moved: float
    played_rounds: int


@dataclass
class _UntilConfirmation(SilentObserver):
    """Takes down how many rounds were spent before the confirmation."""

    bench: RecordedBench
    rounds: int | None = None

    def confirming(self, workload: Workload, finalists: Sequence[Plan], rounds: int) -> None:
        """The finalists have been raced for so many rounds."""
        del workload, finalists, rounds
        if self.rounds is None:
            self.rounds = self.bench.rounds_spent


def tunes(path: Path, seed: int) -> list[Result]:
    """All workloads of a recording with something to choose, under every policy, with one seed."""
    recording = choices(Recording.load(path))
    bench = RecordedBench(played(recording), seed)
    results = []
    for _, group in groupby(recording.tracks, key=lambda track: track.setup):
        neighbour: Entry | None = None
        for track in group:
            bench.open(track.setup)
            judged = _Judged(label(recording, track), track)
            for name, policy in policies(len(track.plans), seed).items():
                ranking = neighbour if name == AS_A_RUN else None
                entry, screened, spent = tune(bench, track, policy, ranking)
                if name == AS_A_RUN:
                    neighbour = entry
                results.append(judged.result(name, entry.plan or track.plans[0], screened, spent))
            results += judged.references()
    return results


def label(recording: Recording, track: Track) -> str:
    """What the results of ``track`` are listed under: its file, and its table in it."""
    stem = recording.path.name.split(".")[0]
    kinds = {(other.setup.backend, other.setup.mode) for other in recording.tracks}
    return stem if len(kinds) == 1 else f"{stem}: {track.setup.backend}, {track.setup.mode}"


def tune(
    bench: RecordedBench, track: Track, policy: Policy, neighbour: Entry | None
) -> tuple[Entry, int, int]:
    """The entry of ``track``, and the rounds spent until its confirmation and in all."""
    before = bench.rounds_spent
    setup, watch = track.setup, _UntilConfirmation(bench)
    with tempfile.TemporaryDirectory() as scratch:
        tuner = Tuner(
            bench,
            Journal.in_memory(),
            Quarantine(Path(scratch) / "quarantine.yaml"),
            Ward(setup.backend, "", {}, setup.kv_cache_dtype, setup.mode, {}, ""),
            Settings(policy=policy, confirmation_s=math.inf),
            watch,
        )
        entry = tuner.tune(track.workload, neighbour=neighbour)
        if entry.plan:  # a recording has one process
            nominee = tuner.nominee(track.workload, entry)
            entry = nominee.decide(MEASURED_SPREAD, tuner.settings.min_speedup)
    assert watch.rounds is not None, "every tune ends in a confirmation"
    return entry, watch.rounds - before, bench.rounds_spent - before


class _Judged:
    """Makes the results of one workload, judged by the rounds that are not played."""

    def __init__(self, recording: str, track: Track) -> None:
        self._recording, self._track = recording, track
        self._judge, self._seen = Judge.of_later(track), Judge.of_earlier(track)
        ratios = [self._judge.expected_us[p] / self._seen.expected_us[p] for p in track.plans]
        self._moved = statistics.median(abs(ratio - 1) for ratio in ratios)

    def result(self, policy: str, plan: Plan, screened: int = 0, spent: int = 0) -> Result:
        """The result of choosing ``plan``."""
        num_plans, judge = len(self._track.plans), self._judge
        every_plan = num_plans * Settings().trial_rounds
        return Result(
            self._recording,
            policy,
            num_plans,
            judge.regret(plan),
            judge.loss(plan),
            judge.slows_a_length(plan),
            plan != judge.default,
            screened / every_plan,
            spent / every_plan,
            self._moved,
            min(len(rounds) // 2 for rounds in self._track.rounds.values()),
        )

    def references(self) -> Iterator[Result]:
        """What the default costs, and what the judge says of a choice by all played rounds."""
        yield self.result(NOTHING, self._judge.default)
        yield self.result(SEEN_BEST, self._seen.best)
