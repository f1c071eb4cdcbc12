"""Policies that choose a plan for each of several workloads of one table, and what they spend."""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mla_tune.measuring.recording import RecordedBench, Recording, Track
from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.compilation import Compilation
from mla_tune.plan.launch import LAUNCH_KNOBS, launch_of
from mla_tune.plan.plan import Plan
from mla_tune.plan.space import PlanSpace
from mla_tune.shapes import BatchShape
from mla_tune.table import Entry
from mla_tune.tuning.api import SilentReporter
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.launch_search import launches_for
from mla_tune.tuning.process_spread import MEASURED_SPREAD
from mla_tune.tuning.quarantine import Quarantine, Ward
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.study import Journal, Policy
from mla_tune.tuning.tuner import Tuner
from mla_tune.vllm.triton_launch import VLLM_LAUNCH


def compiled_as(plan: Plan) -> Plan:
    """What the kernel of ``plan`` is compiled for: its launch and its split count."""
    return Plan(**{k: plan[k] for k in (*LAUNCH_KNOBS, "num_kv_splits") if k in plan})


class SpendingBench(RecordedBench):
    """Plays back, and counts what that would have cost.

    Attributes:
        compiled: kernels that were needed.
        measured_s: seconds that the samples took.
    """

    def __init__(self, recording: Recording, seed: int) -> None:
        super().__init__(recording, seed)
        self.compiled: set[Plan] = set()
        self.measured_s = 0.0

    def plan_space(self, shapes: Sequence[BatchShape]) -> PlanSpace:
        """The recorded plans; the default with the launch that a session would say it has."""
        space = super().plan_space(shapes)
        knobs = {knob for plan in space.plans for knob in launch_of(plan)}
        launch = Plan(**{knob: VLLM_LAUNCH[knob] for knob in LAUNCH_KNOBS if knob in knobs})
        return replace(space, default_assignment=space.default.over(launch))

    def compile(self, plans: Sequence[Plan]) -> Compilation:
        """Take down what would be compiled."""
        self.compiled |= set(map(compiled_as, plans))
        return super().compile(plans)

    def race(
        self,
        plans: Sequence[Plan],
        rounds: int,
        seed: int,
        cases: Sequence[int] | None = None,
    ) -> dict[Plan, Samples]:
        """As a bench's, with its cost counted."""
        self.compile(plans)
        taken = super().race(plans, rounds, seed, cases)
        self.measured_s += sum(float(np.nansum(found.rounds)) for found in taken.values()) / 1e6
        return taken


@dataclass(frozen=True)
class Spent:
    """What one policy chose for the workloads of a table, and what that took.

    Attributes:
        chosen: a plan for each track.
        compiled: kernels that were needed.
        measured_s: seconds that the samples took.
        thought_s: seconds of everything else: the sampler, statistics and this playback.
    """

    chosen: tuple[Plan, ...]
    compiled: int
    measured_s: float
    thought_s: float


@dataclass(frozen=True)
class TablePolicy:
    """How the workloads of a table are tuned.

    Attributes:
        launches: as of `Settings`.
        policy: how the plans of a workload are proposed; None: as a run does.
        is_warm: whether a workload begins with what the one before it ended in.
    """

    launches: str | None = "all"
    policy: Policy | None = None
    is_warm: bool = True

    def run(self, recording: Recording, tracks: Sequence[Track], seed: int) -> Spent:
        """Tune ``tracks``, all of one table, on the rounds in ``recording``."""
        bench = SpendingBench(recording, seed)
        bench.open(tracks[0].setup)
        began, chosen = time.perf_counter(), []
        with tempfile.TemporaryDirectory() as scratch:
            tuner = self._tuner(bench, tracks[0], Path(scratch))
            workloads = [track.workload for track in tracks]
            job = TableJob.of(bench.environment, tracks[0].setup, workloads, Path(scratch))
            tuner.launches = launches_for(job, tuner, SilentReporter())
            neighbour: Entry | None = None
            for track in tracks:
                entry = tuner.tune(track.workload, neighbour=neighbour if self.is_warm else None)
                neighbour = entry
                if entry.plan:  # a recording has one process
                    nominee = tuner.nominee(track.workload, entry)
                    entry = nominee.decide(MEASURED_SPREAD, tuner.settings.min_speedup)
                chosen.append(entry.plan or track.plans[0])
        took_s = time.perf_counter() - began
        return Spent(tuple(chosen), len(bench.compiled), bench.measured_s, took_s)

    def _tuner(self, bench: RecordedBench, track: Track, scratch: Path) -> Tuner:
        setup = track.setup
        return Tuner(
            bench,
            Journal.in_memory(),
            Quarantine(scratch / "quarantine.yaml"),
            Ward(setup.backend, "", {}, setup.kv_cache_dtype, setup.mode, {}, ""),
            Settings(policy=self.policy, launches=self.launches, confirmation_s=math.inf),
        )


SAMPLERS = ("random", "brute force", "tpe", "gp")


def table_policies(seed: int, budgets: Sequence[int]) -> dict[str, Callable[..., Spent]]:
    """The policies that are compared, by name."""
    found = {
        "two steps, as a run does": TablePolicy("few"),
        "all plans": TablePolicy(policy=Policy()),
        "all plans with vLLM's own launch": TablePolicy("none", Policy()),
    }
    for budget in budgets:
        for name in SAMPLERS:
            policy = Policy(name, budget=budget, seed=seed)
            found[f"{name}, {budget} plans"] = TablePolicy(policy=policy)
    return {name: policy.run for name, policy in found.items()}
