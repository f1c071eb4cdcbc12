"""Confirmation: the best few plans and the default, verified and timed side by side."""

__all__ = ["NEAR_BEST", "Confirmation"]

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from mla_tune.errors import WorkloadFailure
from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.failure import PlanFailure
from mla_tune.plan.plan import Plan
from mla_tune.tuning.decide import Contest
from mla_tune.tuning.loaded import LoadedWorkload
from mla_tune.tuning.observers import Observer
from mla_tune.tuning.screening import SCREENING_FACTOR, publishable
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.still_open import open_cases, open_plans
from mla_tune.tuning.study import Outcome

NEAR_BEST = 1.015
"""Screening cannot rank plans closer than this factor: they all go into confirmation."""


@dataclass
class Confirmation:
    """Finds the contenders among the plans that were tried, and races them.

    Args:
        loaded: the workload on its bench.
        outcomes: what became of its plans in screening.
        refused: plans that other processes found slower in some case.
        favourite: last night's plan, which is raced whatever its rank.
        published: what the table publishes now (`Contest.published`).
        settings: how much to measure.
        observer: who is told how it goes.
        clock: seconds, for the length of the confirmation.

    Attributes:
        failures: the plans that failed, here or in screening, with the reason.
    """

    loaded: LoadedWorkload
    outcomes: Sequence[Outcome]
    refused: Collection[Plan]
    favourite: Plan | None
    published: Plan | None
    settings: Settings
    observer: Observer
    clock: Callable[[], float]
    failures: dict[Plan, str] = field(init=False)

    def __post_init__(self) -> None:
        self.failures = {o.plan: o.dropped for o in self.outcomes if o.latency_us is None}
        self._slowing = set(self.refused)

    def run(self) -> Contest:
        """Race the best few and the default until the verdict is clear.

        Where each of the best slows some case down, those behind them get their turn.

        Raises:
            WorkloadFailure: not one plan runs.
        """
        refuted: Contest | None = None
        while contenders := self._contenders():
            # Where the default does not run, the best plan stands in as what others must beat.
            default = self.loaded.default
            baseline = default if default in contenders else contenders[0]
            if refuted is not None and contenders == [default]:
                return refuted
            try:
                contest = self._race(contenders, baseline)
            except PlanFailure as failure:
                blamed = failure.plan if failure.plan in contenders else baseline
                self.failures[blamed] = self.loaded.filed(blamed, failure)
                continue
            verdict = contest.verdict()
            if refuted is not None and verdict.doubt:
                return refuted
            if verdict.doubt or not contest.slowing:
                return contest
            self._slowing |= contest.slowing
            refuted = contest
        if refuted is not None:
            return refuted
        causes = "; ".join(f"{plan}: {reason}" for plan, reason in self.failures.items())
        raise WorkloadFailure(
            f"no plan of {self.loaded.workload} could be measured: {causes}",
            causes=self.failures.values(),
        )

    def _contenders(self) -> list[Plan]:
        """The default and the best few, all of them verified, the default first.

        A failure may have taken the worker and what it knew of the default's output with it, so
        every one starts the verification over.
        """
        while True:
            candidates = self._candidates()
            if all(map(self._is_right, candidates)):
                return candidates

    def _candidates(self) -> list[Plan]:
        """Who could win, by what is known so far, the default first.

        A plan that screening put clearly behind the default is not raced against it again; one
        that was screened out comes back when what it lost against has failed.
        """
        default, settings = self.loaded.default, self.settings
        finished = self._finished()
        ranked = sorted(finished, key=lambda plan: (plan != self.favourite, finished[plan]))
        limit_us = SCREENING_FACTOR * finished.get(default, float("inf"))
        able = [plan for plan in ranked if plan != default and finished[plan] <= limit_us]
        best_us = min((finished[plan] for plan in able), default=0.0)
        near = sum(finished[plan] <= NEAR_BEST * best_us for plan in able)
        count = min(max(settings.finalists, near), settings.most_finalists)
        return [default, *able[:count]] if default in finished else able[:count]

    def _finished(self) -> dict[Plan, float]:
        """Latencies of the plans that could be published and were not screened out in the end."""
        tried = publishable(self.outcomes, self.loaded.default)
        out = self._slowing | self.failures.keys()
        ran = {o.plan: o for o in tried if o.plan not in out}
        latencies = {plan: o.latency_us for plan, o in ran.items() if o.latency_us}
        mark_us = SCREENING_FACTOR * min(latencies.values(), default=0.0)
        return {
            plan: latency_us
            for plan, latency_us in latencies.items()
            if not ran[plan].dropped or latency_us <= mark_us
        }

    def _is_right(self, plan: Plan) -> bool:
        """Whether a plan's output is right; if not, the cause is added to ``failures``."""
        reason = self.loaded.quarantined(plan)
        if reason is not None:
            # Since its trial: by a run that was killed before the verdict.
            self.failures[plan] = reason
            return False
        try:
            self.loaded.verify(plan)
        except PlanFailure as failure:
            self.failures[plan] = self.loaded.filed(plan, failure)
            return False
        return True

    def _race(self, contenders: Sequence[Plan], baseline: Plan) -> Contest:
        """Interleave samples of all contenders until the contest is settled or paid for.

        From the second step on of those alone whose samples can still change the verdict.
        """
        settings, loaded = self.settings, self.loaded
        taken = {plan: Samples(()) for plan in contenders}
        racing: Sequence[Plan] = contenders
        cases: Sequence[int] | None = None
        deadline = self.clock() + settings.confirmation_s
        rounds = 0
        while True:
            self.observer.confirming(loaded.workload, racing, rounds)
            step = _whole_blocks(settings.trial_rounds, len(racing))
            for plan, samples in loaded.race(racing, step, rounds, cases).items():
                taken[plan] += samples
            rounds += step
            contest = Contest(
                baseline,
                dict(taken),
                loaded.shares,
                settings.min_speedup,
                self.favourite,
                self.published,
            )
            spent = rounds >= settings.confirmation_rounds or self.clock() > deadline
            if contest.is_settled or spent:
                return contest
            racing = open_plans(contest)
            cases = open_cases(contest, racing) if loaded.guards else None


def _whole_blocks(rounds: int, num_plans: int) -> int:
    """Nearly ``rounds``, in which every plan is equally often in every place."""
    return num_plans * max(1, round(rounds / num_plans))
