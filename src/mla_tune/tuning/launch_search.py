"""The first step of tuning a table whose kernel's launch is tuned: which launches are worth trying.

Each pair of a launch and a split count is a compilation of its own, and some hundreds of them make
up a plan space. The best launch barely changes with the batch; the best split count does. So the
launches are searched on a few workloads that stand for the others (`representatives`), and all
workloads are tuned over the backend's own launch and the best few, with every split count.

    1. A representative is screened at the backend's own launch with all split counts.
    2. On the first one, all launches are screened, each at its likely best count (`Near`).
    3. The best of them are screened on the other representatives.

What counts of a launch is its time over that of the backend's own, each at its best split count.
"""

__all__ = ["LaunchSearch", "launches_for"]

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mla_tune.errors import UnavailableError, WorkloadFailure
from mla_tune.plan.launch import launch_of
from mla_tune.plan.plan import Plan
from mla_tune.shapes import Workload
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.launches import (
    ALL_LAUNCHES,
    OWN_LAUNCH,
    Launches,
    has_own_launch,
    launches_in,
    splits_of,
)
from mla_tune.tuning.portfolio import portfolio
from mla_tune.tuning.reporters import Reporter
from mla_tune.tuning.representatives import representatives
from mla_tune.tuning.screening import publishable
from mla_tune.tuning.split_shift import Near
from mla_tune.tuning.study import LAUNCHES_OF
from mla_tune.tuning.tuner import Tuner

SURVIVORS = 4
"""Launches that go on after the first representative."""


def launches_for(job: TableJob, tuner: Tuner, reporter: Reporter) -> Launches:
    """The launches that the workloads of ``job`` are tuned over, whose session is open.

    Args:
        job: the table.
        tuner: by its settings none, all, or those of a `LaunchSearch` with it.
        reporter: who is told of the search.
    """
    asked = launches_in(job.setup.mode, tuner.settings.launches)
    if asked == "few":
        return LaunchSearch(job, tuner, reporter).run()
    return ALL_LAUNCHES if asked == "all" else OWN_LAUNCH


@dataclass
class LaunchSearch:
    """Finds the launches that the workloads of one table are tuned over.

    Its trials are in the journal, in studies of their own: a run that was killed goes on, and ends
    in the same launches.

    Args:
        job: the table.
        tuner: whose bench, journal and quarantine are used.
        reporter: who is told how it goes.
    """

    job: TableJob
    tuner: Tuner
    reporter: Reporter
    _best_splits: dict[int, int] = field(default_factory=dict, init=False)
    _shifts: dict[Plan, float] = field(default_factory=dict, init=False)

    def run(self) -> Launches:
        """Search on the representatives of the table's workloads.

        A representative that cannot be measured is passed over: its own turn comes, and says so.
        """
        found: list[Mapping[Plan, float]] = []
        survivors: tuple[Plan, ...] | None = None
        for workload in representatives([w for w in self.job.workloads if self._launches(w)]):
            try:
                ratios = self._searched(workload, survivors)
            except (WorkloadFailure, UnavailableError):
                continue
            if not ratios:
                continue
            found.append(ratios)
            if survivors is None:
                survivors = _best(ratios)
        if not found:
            return OWN_LAUNCH
        chosen = portfolio(found)
        self.reporter.launches_found(self.job, chosen)
        return Launches(chosen, self._best_splits)

    def _launches(self, workload: Workload) -> tuple[Plan, ...]:
        """All that the workload's plan space has beside the backend's own."""
        plans = self.tuner.plan_space(workload).plans
        others = (plan for plan in plans if not has_own_launch(plan, plans[0]))
        return tuple(dict.fromkeys(map(launch_of, others)))

    def _searched(
        self, workload: Workload, survivors: tuple[Plan, ...] | None
    ) -> dict[Plan, float]:
        """Time of each launch over that of the backend's own, each at its best split count.

        Args:
            workload: a representative.
            survivors: the launches to try; None: all.
        """
        plans = self.tuner.plan_space(workload).plans
        launches = survivors or self._launches(workload)
        self.reporter.searching(self.job, workload, len(launches))
        anchor = self._best_own(workload, OWN_LAUNCH.among(plans, workload.rows))
        if anchor is None:
            return {}
        self._best_splits[workload.rows] = splits_of(anchor)
        near = Near(plans, anchor, self.job.setup.model.num_q_heads)
        ratios: dict[Plan, float] = {}
        if survivors is None:
            pioneers = near.pioneers(launches)
            ratios = self._ratios(workload, anchor, pioneers)
            self._shifts = near.shifts(launches, ratios)
        # In a batch that fills the GPU by itself the best count is the own launch's.
        shifts = {launch: self._shifts[launch] for launch in launches}
        once = [near.plan(launch, shift) for launch, shift in shifts.items()]
        if survivors is not None:
            once += [near.plan(launch, 1.0) for launch in launches]
        ratios |= self._ratios(workload, anchor, [plan for plan in once if plan not in ratios])
        return _by_launch(ratios)

    def _best_own(self, workload: Workload, own: Sequence[Plan]) -> Plan | None:
        """The fastest plan with the backend's own launch; None: not one runs."""
        outcomes = self.tuner.screened(workload, workload.measured_key, own)
        ran = [o for o in publishable(outcomes, own[0]) if o.latency_us and not o.dropped]
        return min(ran, key=lambda o: o.latency_us or math.inf).plan if ran else None

    def _ratios(
        self, workload: Workload, anchor: Plan, wanted: Iterable[Plan | None]
    ) -> dict[Plan, float]:
        """Time of each plan over that of ``anchor``; those that failed are left out."""
        default = self.tuner.plan_space(workload).default
        plans = tuple(dict.fromkeys(plan for plan in wanted if plan is not None))
        if not plans:
            return {}
        everything = tuple(dict.fromkeys((default, anchor, *plans)))
        key = f"{LAUNCHES_OF}{workload.measured_key}"
        outcomes = self.tuner.screened(workload, key, everything)
        able = publishable(outcomes, default)
        latencies_us = {o.plan: o.latency_us for o in able if o.latency_us is not None}
        if anchor not in latencies_us:
            return {}
        return {p: latencies_us[p] / latencies_us[anchor] for p in plans if p in latencies_us}


def _by_launch(ratios: Mapping[Plan, float]) -> dict[Plan, float]:
    """The best ratio of each launch."""
    best: dict[Plan, float] = {}
    for plan, ratio in ratios.items():
        launch = launch_of(plan)
        best[launch] = min(ratio, best.get(launch, math.inf))
    return best


def _best(ratios: Mapping[Plan, float]) -> tuple[Plan, ...]:
    return tuple(sorted(ratios, key=lambda launch: ratios[launch])[:SURVIVORS])
