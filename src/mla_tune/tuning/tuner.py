"""One (backend, workload): from its effective plans to a verdict."""

__all__ = ["Observer", "Settings", "Tuner"]

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import ValidationError

from mla_tune.errors import WorkloadFailure
from mla_tune.measuring.bench import Bench
from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.failure import PlanFailure
from mla_tune.plan.knobs import Plan
from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.tuning.decide import (
    MIN_ROUNDS,
    SCREENING_FACTOR,
    WIDEST,
    Contest,
    expected_us,
    is_hopeless,
    slows_a_case,
)
from mla_tune.tuning.entry import outlasts_doubt, published_entry
from mla_tune.tuning.quarantine import Quarantine, Ward
from mla_tune.tuning.study import Journal, Ledger, Outcome, Policy

NEAR_BEST = 1.015
"""Screening cannot rank plans closer than this factor: they all go into confirmation."""


@dataclass(frozen=True)
class Settings:
    """How much to measure before a verdict.

    Attributes:
        min_speedup: the publish gate; see `Contest`.
        screening_rounds: samples before a plan may be dropped.
        trial_rounds: samples of a plan that is not dropped.
        finalists: how many plans at least go into confirmation beside the default, and ...
        most_finalists: ... how many at most, when they are within `NEAR_BEST` of the best.
        confirmation_rounds: interleaved rounds at most, and ...
        confirmation_s: ... seconds at most (a round under way is finished).
        policy: how plans are proposed; None: by the size of the space.
    """

    min_speedup: float = 1.01
    screening_rounds: int = 3
    trial_rounds: int = 8
    finalists: int = 3
    most_finalists: int = 6
    confirmation_rounds: int = 96
    confirmation_s: float = 30.0
    policy: Policy | None = None


class Observer(Protocol):
    """Who is told how it goes."""

    def planned(self, workload: Workload, num_plans: int) -> None: ...
    def tried(self, workload: Workload, outcome: Outcome, best_us: float | None) -> None: ...
    def confirming(self, workload: Workload, finalists: Sequence[Plan], rounds: int) -> None: ...
    def kept(self, workload: Workload, doubt: str) -> None: ...


class SilentObserver:
    """Nobody."""

    def planned(self, workload: Workload, num_plans: int) -> None:
        pass

    def tried(self, workload: Workload, outcome: Outcome, best_us: float | None) -> None:
        pass

    def confirming(self, workload: Workload, finalists: Sequence[Plan], rounds: int) -> None:
        pass

    def kept(self, workload: Workload, doubt: str) -> None:
        pass


@dataclass
class Tuner:
    """Tunes workloads of one backend, device, model, KV dtype and mode.

    Args:
        bench: what measures.
        journal: where trials are kept.
        quarantine, ward: plans not to be tried, and what they are filed under.
        settings: how much to measure.
        observer: who is told how it goes.
        clock: seconds, for the length of a confirmation.
    """

    bench: Bench
    journal: Journal
    quarantine: Quarantine
    ward: Ward
    settings: Settings = field(default_factory=Settings)
    observer: Observer = field(default_factory=SilentObserver)
    clock: Callable[[], float] = time.monotonic

    def tune(
        self, workload: Workload, previous: Entry | None = None, neighbour: Entry | None = None
    ) -> Entry:
        """Find the plan for ``workload``, going on where an earlier run left it.

        Args:
            workload: what to tune for.
            previous: last night's entry, for the ranking and for ties. Where it is proven, for the
                same software, it outlasts a confirmation that ends in doubt.
            neighbour: the entry of a similar workload, for the ranking.

        Returns:
            The entry to publish. Nothing is measured when the study already has a verdict for the
            same gate and weights. Where the samples were too few or too noisy for a verdict, the
            study gets none, and the next run confirms again.

        Raises:
            WorkloadFailure: not one plan runs.
        """
        plans = self.bench.plan_space(workload.shapes).plans
        policy = self.settings.policy or Policy.for_space(len(plans))
        ranking = [*_ranking(previous), *_ranking(neighbour)]
        ledger = self.journal.ledger(str(workload), plans, policy, ranking)
        self.observer.planned(workload, len(plans))
        terms = self._terms(workload)
        decided = _decided(ledger.verdict, terms)
        if decided is not None:
            return decided
        self.bench.load(workload)
        self._screen(workload, ledger, plans[0])
        favourite = previous.plan or previous.unproven if previous is not None else None
        contest, failures = self._confirm(workload, ledger, plans[0], favourite)
        doubt = contest.verdict().doubt
        proven = previous if previous is not None and plans[0] not in failures else None
        if doubt and proven is not None and outlasts_doubt(proven, contest, failures):
            self.observer.kept(workload, doubt)
            return proven
        entry = published_entry(workload, contest, plans[0], failures)
        if not doubt:
            ledger.decide({"terms": terms, "entry": entry.model_dump(mode="json")})
        return entry

    def decided(self, workload: Workload) -> Entry | None:
        """What an earlier run decided on the same terms, if it did; measures nothing.

        Raises:
            WorkloadFailure: the bench has ended, and does not come back.
        """
        plans = self.bench.plan_space(workload.shapes).plans
        return _decided(self.journal.verdict(str(workload), plans), self._terms(workload))

    def _terms(self, workload: Workload) -> dict[str, object]:
        """What a verdict depends on beside the samples."""
        return {
            "min_speedup": self.settings.min_speedup,
            "weights": [case.weight for case in workload.cases],
            "min_rounds": MIN_ROUNDS,
            "widest": WIDEST,
        }

    def _screen(self, workload: Workload, ledger: Ledger, default: Plan) -> None:
        """Try every plan that the ledger hands out."""
        best_us = _best_us(ledger.outcomes(), default)
        for plan in ledger.pending():
            outcome = self._try(workload, plan, best_us)
            ledger.tell(outcome)
            best_us = _best_us(ledger.outcomes(), default)
            self.observer.tried(workload, outcome, best_us)

    def _try(self, workload: Workload, plan: Plan, incumbent_us: float | None) -> Outcome:
        reason = self.quarantine.reason(self.ward, str(workload), plan)
        if reason is not None:
            return Outcome(plan, None, f"quarantined: {reason}")
        shares, settings = workload.shares(), self.settings
        try:
            samples = self._sample(plan, settings.screening_rounds)
            if incumbent_us is None or not is_hopeless(samples, shares, incumbent_us):
                samples += self._sample(plan, settings.trial_rounds - settings.screening_rounds)
                latency_us = expected_us(samples, shares)
                if incumbent_us is None or latency_us < incumbent_us:
                    # A wrong plan must not set the mark that right ones are dropped by.
                    self.bench.verify(plan)
                return Outcome(plan, latency_us, rounds=samples.rounds)
        except PlanFailure as failure:
            return Outcome(plan, None, self._recorded(workload, plan, failure))
        latency_us = expected_us(samples, shares)
        return Outcome(plan, latency_us, "screened out", samples.rounds)

    def _sample(self, plan: Plan, rounds: int) -> Samples:
        return self.bench.race([plan], rounds, seed=0)[plan]

    def _recorded(self, workload: Workload, plan: Plan, failure: PlanFailure) -> str:
        """File a failure and return its one-line description."""
        reason = f"{failure.kind}: {failure.what}"
        if failure.kind.is_quarantined:
            self.quarantine.add(self.ward, str(workload), plan, reason)
        return reason

    def _confirm(
        self, workload: Workload, ledger: Ledger, default: Plan, favourite: Plan | None
    ) -> tuple[Contest, dict[Plan, str]]:
        """Race the best few and the default until the verdict is clear, and return what failed."""
        outcomes = ledger.outcomes()
        failures = {o.plan: o.dropped for o in outcomes if o.latency_us is None}
        while contenders := self._contenders(workload, outcomes, default, favourite, failures):
            # Where the default does not run, the best plan stands in as what others must beat.
            baseline = default if default in contenders else contenders[0]
            try:
                contest = self._race(workload, contenders, baseline, favourite)
            except PlanFailure as failure:
                blamed = next((p for p in contenders if p == failure.plan), baseline)
                failures[blamed] = self._recorded(workload, blamed, failure)
            else:
                return contest, failures
        causes = "; ".join(f"{plan}: {reason}" for plan, reason in failures.items())
        raise WorkloadFailure(
            f"no plan of {workload} could be measured: {causes}", causes=failures.values()
        )

    def _contenders(
        self,
        workload: Workload,
        outcomes: Sequence[Outcome],
        default: Plan,
        favourite: Plan | None,
        failures: dict[Plan, str],
    ) -> list[Plan]:
        """The default and the best few, all of them verified, the default first.

        A failure may have taken the worker and what it knew of the default's output with it, so
        every one starts the verification over.
        """
        while True:
            candidates = self._candidates(outcomes, default, favourite, failures)
            if all(self._is_right(workload, plan, failures) for plan in candidates):
                return candidates

    def _candidates(
        self,
        outcomes: Sequence[Outcome],
        default: Plan,
        favourite: Plan | None,
        failures: Mapping[Plan, str],
    ) -> list[Plan]:
        """Who could win, by what is known so far, the default first.

        A plan that screening put clearly behind the default is not raced against it again; one
        that was screened out comes back when what it lost against has failed.
        """
        ran = {o.plan: o for o in _publishable(outcomes, default) if o.plan not in failures}
        latencies = {plan: o.latency_us for plan, o in ran.items() if o.latency_us}
        mark_us = SCREENING_FACTOR * min(latencies.values(), default=0.0)
        finished = {
            plan: latency_us
            for plan, latency_us in latencies.items()
            if not ran[plan].dropped or latency_us <= mark_us
        }
        ranked = sorted(finished, key=lambda plan: (plan != favourite, finished[plan]))
        limit_us = SCREENING_FACTOR * finished.get(default, float("inf"))
        able = [plan for plan in ranked if plan != default and finished[plan] <= limit_us]
        best_us = min((finished[plan] for plan in able), default=0.0)
        near = sum(finished[plan] <= NEAR_BEST * best_us for plan in able)
        count = min(max(self.settings.finalists, near), self.settings.most_finalists)
        return [default, *able[:count]] if default in finished else able[:count]

    def _is_right(self, workload: Workload, plan: Plan, failures: dict[Plan, str]) -> bool:
        """Whether a plan's output is right; if not, the cause is added to ``failures``."""
        reason = self.quarantine.reason(self.ward, str(workload), plan)
        if reason is not None:
            # Since its trial: by a run that was killed before the verdict.
            failures[plan] = reason
            return False
        try:
            self.bench.verify(plan)
        except PlanFailure as failure:
            failures[plan] = self._recorded(workload, plan, failure)
            return False
        return True

    def _race(
        self,
        workload: Workload,
        contenders: Sequence[Plan],
        baseline: Plan,
        favourite: Plan | None,
    ) -> Contest:
        """Interleave samples of all contenders until the contest is settled or paid for."""
        settings, shares = self.settings, tuple(workload.shares())
        step = max(2, settings.trial_rounds)
        taken = {plan: Samples(()) for plan in contenders}
        deadline = self.clock() + settings.confirmation_s
        rounds = 0
        while True:
            self.observer.confirming(workload, contenders, rounds)
            for plan, samples in self.bench.race(contenders, step, seed=rounds + 1).items():
                taken[plan] += samples
            rounds += step
            contest = Contest(baseline, taken, shares, settings.min_speedup, favourite)
            spent = rounds >= settings.confirmation_rounds or self.clock() > deadline
            if contest.is_settled or spent:
                return contest


def _decided(verdict: Mapping[str, Any] | None, terms: Mapping[str, object]) -> Entry | None:
    """The verdict of an earlier run, if it was on the same terms and still is an entry."""
    if verdict is None or verdict["terms"] != terms:
        return None
    try:
        return Entry.model_validate(verdict["entry"])
    except ValidationError:
        return None  # by a version that wrote other entries: its trials are confirmed again


def _publishable(outcomes: Sequence[Outcome], default: Plan) -> list[Outcome]:
    """Leave out what has turned out slower than the default for some KV length."""
    rounds = next((o.rounds for o in outcomes if o.plan == default), ())
    if not rounds:
        return list(outcomes)
    return [
        o for o in outcomes if not o.rounds or not slows_a_case(Samples(o.rounds), Samples(rounds))
    ]


def _best_us(outcomes: Sequence[Outcome], default: Plan) -> float | None:
    return min(
        (o.latency_us for o in _publishable(outcomes, default) if o.latency_us and not o.dropped),
        default=None,
    )


def _ranking(entry: Entry | None) -> list[Plan]:
    """Put first what was good before: an early good incumbent screens out the rest sooner."""
    plans = (entry.plan, entry.unproven, *entry.ties) if entry is not None else ()
    return [plan for plan in plans if plan is not None]
