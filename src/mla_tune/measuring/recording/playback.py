"""A bench that draws from recorded rounds instead of measuring."""

__all__ = ["RecordedBench"]

import math
import random
from collections.abc import Sequence

from mla_tune.measuring.recording.content import Recording, Track
from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.compilation import NOTHING_COMPILED, Compilation
from mla_tune.plan.failure import FailureKind, PlanFailure
from mla_tune.plan.launch import launch_of
from mla_tune.plan.plan import Plan
from mla_tune.plan.space import PlanSpace
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, Workload


class RecordedBench:
    """A bench that draws from recorded rounds instead of measuring.

    Plans recorded side by side are drawn side by side: round i of one comes with round i of the
    others, so that drift common to them stays common. ``seed`` makes runs differ.
    """

    def __init__(self, recording: Recording, seed: int = 0) -> None:
        self.environment = recording.environment
        self.rounds_spent = 0
        self._tracks = {(track.setup, track.workload.shapes): track for track in recording.tracks}
        self._setup: Setup | None = None
        self._track: Track | None = None
        self._draw = random.Random(seed)

    def open(self, setup: Setup) -> None:
        """Turn to one section of the recording."""
        self._setup = setup

    def _find(self, shapes: Sequence[BatchShape]) -> Track:
        assert self._setup is not None, "open() comes first"
        return self._tracks[self._setup, tuple(shapes)]

    def plan_space(self, shapes: Sequence[BatchShape]) -> PlanSpace:
        """The recorded plans. Raises KeyError for shapes that were not recorded.

        A run that tried few launches has listed all and recorded those.
        """
        track = self._find(shapes)
        plans = tuple(
            plan
            for plan in track.plans
            if not launch_of(plan) or plan in track.rounds or plan in track.failures
        )
        return PlanSpace(plans, len(plans))

    def load(self, workload: Workload) -> None:
        """Turn to one track."""
        self._track = self._find(workload.shapes)

    def compile(self, plans: Sequence[Plan]) -> Compilation:
        """Nothing is compiled for a playback."""
        del plans
        return NOTHING_COMPILED

    def race(
        self,
        plans: Sequence[Plan],
        rounds: int,
        seed: int,
        cases: Sequence[int] | None = None,
    ) -> dict[Plan, Samples]:
        """Draw ``rounds`` of each plan, the same position for all."""
        del seed  # the recording's own draw makes two races differ
        track = self._track
        assert track is not None, "load() comes first"
        for plan in plans:
            if plan in track.failures or not track.rounds.get(plan):
                unheard = (FailureKind.RAISED, "not recorded")
                kind, what = track.failures.get(plan, unheard)
                raise PlanFailure(what, plan=plan, kind=kind)
        self.rounds_spent += rounds * len(plans)
        positions = [self._draw.random() for _ in range(rounds)]
        numbers = range(len(track.workload.cases))
        wanted = [cases is None or number in cases for number in numbers]
        return {plan: _drawn(plan, track.rounds[plan], positions, wanted) for plan in plans}

    def verify(self, plan: Plan) -> None:
        """Pass: what a recording says of a plan is its latency, or its failure in `race`."""

    def renew(self) -> bool:
        """One process was recorded."""
        return False

    def close(self) -> None:
        """Nothing is held."""


def _drawn(
    plan: Plan,
    recorded: Sequence[tuple[float, ...]],
    positions: Sequence[float],
    wanted: Sequence[bool],
) -> Samples:
    """The rounds at ``positions`` (0 to 1), with what is not ``wanted`` left out.

    A recorded round may have left out a case itself; then its place is looked up among those that
    did not.
    """
    rows = [list(recorded[int(position * len(recorded))]) for position in positions]
    for number, is_wanted in enumerate(wanted):
        sampled: list[float] = []
        for row, position in zip(rows, positions, strict=True):
            if not is_wanted:
                row[number] = math.nan
            elif math.isnan(row[number]):
                sampled = sampled or list(Samples(tuple(recorded)).of_case(number))
                if not sampled:
                    raise PlanFailure("not recorded", plan=plan, kind=FailureKind.RAISED)
                row[number] = sampled[int(position * len(sampled))]
    return Samples(tuple(map(tuple, rows)))
