"""The trial ledger: one Optuna study per (backend, workload).

In spaces of ten plans Optuna's samplers still draw at random, and in the recorded ones of 33 half
of the plans, chosen by TPE, has 1.1 % regret where all of them have none (docs/search.md); so up to
a hundred plans all are tried, likeliest first, and Optuna keeps the books.
"""

__all__ = ["RACE", "Ledger", "stored_verdict"]

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.trial import TrialState

from mla_tune.plan.plan import Plan
from mla_tune.tuning.race import Race
from mla_tune.tuning.study.outcome import Outcome, outcome_of, trial_of
from mla_tune.tuning.study.parameters import Parameters
from mla_tune.tuning.study.policy import Policy
from mla_tune.tuning.study.proposer import Proposer

RACE = "race in another process"

MOST_REFUSED = 2
"""Plans of a workload that other processes may refuse: after that it keeps the default. Each costs
the starts of those processes again."""

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class Ledger:
    """The trials of one workload.

    A plan enters the study when it is finished, as one synced line of the journal: a kill leaves no
    half-begun trial behind, and keeping the books costs a few milliseconds a plan (asking, tagging
    and telling in turn would be a dozen synced lines).

    Args:
        study: where trials are kept.
        plans: the plan space, the default first.
        parameters: what its knobs are in the study.
        policy: how to propose plans.
        ranking: plans to try soonest after the default, likeliest first.
    """

    def __init__(
        self,
        study: optuna.Study,
        plans: tuple[Plan, ...],
        parameters: Parameters,
        policy: Policy,
        ranking: Sequence[Plan],
    ) -> None:
        self._study = study
        self._plans = plans
        self._parameters = parameters
        self._policy = policy
        self._ranked = tuple(dict.fromkeys((plans[0], *(p for p in ranking if p in plans))))
        self._order = tuple(dict.fromkeys((*self._ranked, *plans)))
        self._begun: datetime | None = None
        self._outcomes: list[Outcome] = []
        self._num_read = 0
        self._proposer: Proposer | None = None

    @property
    def verdict(self) -> dict[str, Any] | None:
        """What was decided in an earlier run; see `stored_verdict`."""
        return stored_verdict(self._study.user_attrs)

    def decide(self, verdict: dict[str, Any]) -> None:
        """Store the verdict; from here on a resumed run measures nothing."""
        self._study.set_user_attr("verdict", verdict)

    @property
    def confirmed(self) -> dict[str, Any] | None:
        """What was decided over several processes, as it was stored."""
        stored: dict[str, Any] | None = self._study.user_attrs.get("confirmed")
        return stored

    def confirm(self, confirmed: dict[str, Any], refused: dict[Plan, str] | None = None) -> None:
        """Store what was decided over several processes, and what they have refused meanwhile.

        In one line: after a kill between two, the plan would be neither published nor out.
        """
        every = self.refused | (refused or {})
        told = [{"knobs": dict(plan), "seen": seen} for plan, seen in every.items()]
        self._study.set_user_attr("confirmed", confirmed | ({"refused": told} if told else {}))

    @property
    def refused(self) -> dict[Plan, str]:
        """The plans that other processes have refused, with what they saw; none comes back."""
        stored = (self.confirmed or {}).get("refused", ())
        return {Plan.from_dict(each["knobs"]): str(each["seen"]) for each in stored}

    def races(self) -> list[Race]:
        """The rounds of later processes, in the order they were kept, whatever the plan."""
        stored = self._study.user_attrs
        return [Race.from_dict(stored[key]) for key in self._race_keys(stored)]

    def keep_race(self, race: Race) -> None:
        """Put the rounds of a later process on disk."""
        number = len(self._race_keys(self._study.user_attrs))
        self._study.set_user_attr(f"{RACE} {number}", race.as_dict())

    @staticmethod
    def _race_keys(stored: Mapping[str, Any]) -> list[str]:
        return [key for key in stored if key.startswith(RACE)]

    @property
    def told_last(self) -> datetime | None:
        """When the last trial was finished, in local time; None without any."""
        trials = self._study.get_trials(deepcopy=False, states=FINISHED)
        return max((t.datetime_complete for t in trials if t.datetime_complete), default=None)

    def outcomes(self) -> list[Outcome]:
        """Everything told so far, in the order it was tried, each plan once."""
        trials = self._study.get_trials(deepcopy=False, states=FINISHED)
        for trial in trials[self._num_read :]:
            outcome = outcome_of(trial)
            if outcome is not None and outcome.plan in self._plans:
                self._outcomes.append(outcome)
                if self._proposer is not None:
                    self._proposer.learn(trial)
        self._num_read = len(trials)
        return list(self._outcomes)

    def pending(self) -> Iterator[Plan]:
        """Propose plans until the policy has enough; each is to be told before the next."""
        if self._policy.name != "enumerate" and self._proposer is None:
            tried = {outcome.plan for outcome in self.outcomes()}
            first = [plan for plan in self._ranked[1:] if plan not in tried]
            self._proposer = Proposer(self._policy, self._parameters, first)
            self._outcomes, self._num_read = [], 0  # so that it learns of those read before
        while True:
            tried = {outcome.plan for outcome in self.outcomes()}
            untried = [plan for plan in self._order if plan not in tried]
            budget = self._policy.budget or len(self._plans)
            if not untried or len(tried) >= budget or self._out_of_patience():
                return
            self._begun = datetime.now(UTC)
            yield self._next(untried)

    def _next(self, untried: Sequence[Plan]) -> Plan:
        """The default comes first: others are compared with it."""
        if self._proposer is None or untried[0] == self._plans[0]:
            return untried[0]
        return self._proposer.propose(untried)

    def _out_of_patience(self) -> bool:
        if self._policy.patience is None:
            return False
        latencies = [math.inf if o.dropped else o.latency_us or math.inf for o in self._outcomes]
        if min(latencies, default=math.inf) == math.inf:
            return False
        return len(latencies) - 1 - latencies.index(min(latencies)) >= self._policy.patience

    def tell(self, outcome: Outcome) -> None:
        """Put the outcome of a plan on disk."""
        default = next((o for o in self.outcomes() if o.plan == self._plans[0]), None)
        if outcome.plan == self._plans[0]:
            default = outcome
        self._study.add_trial(trial_of(outcome, self._parameters, default, self._begun))
        self._begun = None


def stored_verdict(stored: Mapping[str, Any]) -> dict[str, Any] | None:
    """The verdict among the attributes of a study.

    None where there is none, or where other processes have refused its plan and another may win.
    Where they have refused so many that none may, what the last one ended in is in its place.
    """
    verdict: dict[str, Any] | None = stored.get("verdict")
    confirmed = stored.get("confirmed", {})
    refused = [each["knobs"] for each in confirmed.get("refused", ())]
    if verdict is None or not refused or verdict["entry"]["plan"] not in refused:
        return verdict
    return None if len(refused) < MOST_REFUSED else verdict | {"entry": confirmed["entry"]}
