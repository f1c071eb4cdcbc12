"""A recording cut in two: rounds to tune on, and rounds that judge what came of it.

The earlier half of each workload's rounds is played, the later one judges, as a table is measured
first and served afterwards. Alternating rounds would share every drift, and the judge would be too
kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import stats

from mla_tune.measuring.recording import Recording, Track
from mla_tune.plan.plan import Plan
from mla_tune.tuning.decide import SLOWEST_CASE

LEAST_ROUNDS = 4
"""Recorded rounds of a plan below which a half says nothing."""

TRIMMED = 0.2
"""The share of a half's rounds left out at either end of a mean: one of five."""


def choices(recording: Recording) -> Recording:
    """The workloads with something to choose: the default and another plan, recorded often enough.

    Plans that were recorded less are left out.
    """
    tracks = []
    for track in recording.tracks:
        rounds = {plan: kept for plan, kept in track.rounds.items() if len(kept) >= LEAST_ROUNDS}
        if track.plans[0] in rounds and len(rounds) > 1:
            plans = tuple(plan for plan in track.plans if plan in rounds)
            tracks.append(replace(track, plans=plans, rounds=rounds, failures={}))
    return replace(recording, tracks=tuple(tracks))


def played(recording: Recording) -> Recording:
    """The earlier half of each plan's rounds; of an odd number, the lesser half."""
    return replace(recording, tracks=tuple(_part(track, later=False) for track in recording.tracks))


def _part(track: Track, *, later: bool) -> Track:
    rounds: dict[Plan, Sequence[tuple[float, ...]]] = {
        plan: kept[len(kept) // 2 :] if later else kept[: len(kept) // 2]
        for plan, kept in track.rounds.items()
    }
    return replace(track, rounds=rounds)


@dataclass(frozen=True)
class Judge:
    """What rounds say of the plans of one workload.

    Latencies are trimmed means in microseconds; 0.01 is 1 %.
    """

    track: Track

    @classmethod
    def of_later(cls, track: Track) -> "Judge":
        """By the rounds that are not played."""
        return cls(_part(track, later=True))

    @classmethod
    def of_earlier(cls, track: Track) -> "Judge":
        """By the rounds that are played."""
        return cls(_part(track, later=False))

    @property
    def default(self) -> Plan:
        """The plan that others have to beat."""
        return self.track.plans[0]

    @cached_property
    def _by_case(self) -> "dict[Plan, np.ndarray[tuple[int], np.dtype[np.float64]]]":
        return {
            plan: np.asarray(stats.trim_mean(np.asarray(rounds), TRIMMED, axis=0))
            for plan, rounds in self.track.rounds.items()
        }

    @cached_property
    def expected_us(self) -> dict[Plan, float]:
        """The latency of each plan, over the workload's KV lengths by their shares."""
        shares = np.asarray(self.track.workload.shares())
        return {plan: float(cases @ shares) for plan, cases in self._by_case.items()}

    def loss(self, plan: Plan) -> float:
        """By how much ``plan`` is slower than the default; below zero where it is faster."""
        return self.expected_us[plan] / self.expected_us[self.default] - 1

    def slows_a_length(self, plan: Plan) -> bool:
        """Whether some KV length of several is slower than the gate allows."""
        speedups = self._by_case[self.default] / self._by_case[plan]
        return len(speedups) > 1 and bool(np.min(speedups) < SLOWEST_CASE)

    @cached_property
    def best(self) -> Plan:
        """The fastest of the plans that slow down no KV length: no other may be published."""
        allowed = [plan for plan in self.expected_us if not self.slows_a_length(plan)]
        return min(allowed, key=lambda plan: self.expected_us[plan])

    def regret(self, plan: Plan) -> float:
        """By how much ``plan`` is slower than the best that is allowed; never below zero."""
        return max(0.0, self.expected_us[plan] / self.expected_us[self.best] - 1)
