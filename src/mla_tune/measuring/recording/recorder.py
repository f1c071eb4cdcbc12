"""A bench that writes down everything another one measures."""

__all__ = ["Recorder"]

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from mla_tune.measuring.bench import Bench
from mla_tune.measuring.orders import order_seed
from mla_tune.measuring.recording.file import RecordingFile
from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.compilation import Compilation
from mla_tune.plan.failure import PlanFailure
from mla_tune.plan.plan import Plan
from mla_tune.plan.space import PlanSpace
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, Workload

MOST_SAMPLES_A_LINE = 20_000
"""Far below what a reader takes for a line without end."""
MOST_TEXT = 10_000


class Recorder:
    """A bench that writes down everything another one measures in its first process of a section.

    What other processes measure after `renew`, until another section is opened, is left out: a
    recording is played back as one process.

    Args:
        bench: what measures.
        file: where to.
        every_plan_rounds: if above zero, race all plans of each workload for so many rounds when
            it is loaded, and write down these alone: side by side, and no plan screened out, as
            a comparison of search policies needs them. A workload that the file has so already
            is not raced again.

    Raises:
        InputError: the file was recorded in another environment.
        EnvironmentFailure: it cannot be written.
    """

    def __init__(self, bench: Bench, file: RecordingFile, every_plan_rounds: int = 0) -> None:
        self.environment = bench.environment
        self._bench = bench
        self._file = file
        self._every_plan_rounds = every_plan_rounds
        self._setup: Setup | None = None
        self._is_renewed = False
        file.begin(bench.environment)

    def open(self, setup: Setup) -> None:
        """As the bench's own."""
        self._bench.open(setup)
        self._setup = setup
        self._is_renewed = False
        self._file.append([{"section": asdict(setup)}])

    def plan_space(self, shapes: Sequence[BatchShape]) -> PlanSpace:
        """As the bench's own."""
        return self._bench.plan_space(shapes)

    def load(self, workload: Workload) -> None:
        """As the bench's own."""
        self._bench.load(workload)
        if self._is_renewed:
            return
        plans = self._bench.plan_space(workload.shapes).plans
        line = {
            "workload": workload.measured_key,
            "weights": [case.weight for case in workload.cases],
            "plans": [dict(plan) for plan in plans],
        }
        self._file.append([line])
        if self._every_plan_rounds:
            done = self._recorded_before(workload)
            if not set(plans) <= done:
                self._race_all(list(plans), order_seed(str(workload)))

    def _recorded_before(self, workload: Workload) -> set[Plan]:
        """The plans of ``workload`` that an earlier run has raced, or seen fail."""
        tracks = self._file.earlier.tracks if self._file.earlier is not None else ()
        return {
            plan
            for track in tracks
            if (track.setup, track.workload.shapes) == (self._setup, workload.shapes)
            for plan in track.plans
            if plan in track.failures or len(track.rounds.get(plan, ())) >= self._every_plan_rounds
        }

    def _race_all(self, plans: list[Plan], seed: int) -> None:
        """Race all plans that work, taking out the ones that turn out not to."""
        failed = self.compile(plans).failures
        plans = [plan for plan in plans if plan not in failed]
        while plans:
            try:
                self._written(plans, self._every_plan_rounds, seed, None)
            except PlanFailure as failure:
                if failure.plan not in plans:
                    raise
                plans.remove(failure.plan)
            else:
                return

    def compile(self, plans: Sequence[Plan]) -> Compilation:
        """As the bench's own."""
        done = self._bench.compile(plans)
        if done.failures and not self._is_renewed:
            self._file.append([_failure_line(failure) for failure in done.failures.values()])
        return done

    def race(
        self,
        plans: Sequence[Plan],
        rounds: int,
        seed: int,
        cases: Sequence[int] | None = None,
    ) -> dict[Plan, Samples]:
        """As the bench's own."""
        if self._every_plan_rounds or self._is_renewed:
            return self._bench.race(plans, rounds, seed, cases)
        return self._written(plans, rounds, seed, cases)

    def _written(
        self, plans: Sequence[Plan], rounds: int, seed: int, cases: Sequence[int] | None
    ) -> dict[Plan, Samples]:
        try:
            taken = self._bench.race(plans, rounds, seed, cases)
        except PlanFailure as failure:
            self._file.append([_failure_line(failure)])
            raise
        self._file.append(_race_lines(taken))
        return taken

    def verify(self, plan: Plan) -> None:
        """As the bench's own."""
        self._bench.verify(plan)

    def renew(self) -> bool:
        """As the bench's own."""
        self._is_renewed = self._bench.renew()
        return self._is_renewed

    def close(self) -> None:
        """As the bench's own; the file is closed by who has opened it."""
        self._bench.close()


def _failure_line(failure: PlanFailure) -> dict[str, Any]:
    content = {"kind": failure.kind, "what": failure.what[:MOST_TEXT]}
    return {"plan": dict(failure.plan), "failure": content}


def _race_lines(taken: dict[Plan, Samples]) -> Iterator[dict[str, Any]]:
    """One line a race: plans that ran side by side are read side by side, or not at all."""
    rows = {
        plan: [list(map(_rounded, cases)) for cases in samples.rounds]
        for plan, samples in taken.items()
    }
    num_rounds = max((len(rounds) for rounds in rows.values()), default=0)
    width = sum(len(rounds[0]) for rounds in rows.values() if rounds)
    step = max(1, MOST_SAMPLES_A_LINE // max(1, width))
    for first in range(0, num_rounds, step):
        yield {
            "race": [
                {"plan": dict(plan), "rounds": rounds[first : first + step]}
                for plan, rounds in rows.items()
            ]
        }


def _rounded(latency_us: float) -> float | None:
    """As it is written: in whole nanoseconds, or null where the case was left out."""
    return None if math.isnan(latency_us) else round(latency_us, 3)
