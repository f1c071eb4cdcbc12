"""The trial ledger: one Optuna study per (backend, workload), in a journal that survives kills.

The only file beside the `journal` that imports Optuna. In spaces of ten plans its samplers still
draw at random, and in the recorded ones of 33 half of the plans, chosen by TPE, has 1.1 % regret
where all of them have none (docs/search.md); so the default policy enumerates: all plans are
tried, likeliest first, and Optuna keeps the books. Spaces of over a hundred plans are sampled
(`Policy`), which no recording has tested.
"""

__all__ = ["Journal", "Ledger", "Outcome", "Policy"]

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import IntDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from mla_tune.plan.plan import Plan
from mla_tune.tuning.journal.file import JournalFile
from mla_tune.tuning.race import Race

optuna.logging.set_verbosity(optuna.logging.WARNING)

SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}
LARGEST_ENUMERATED = 100
RACE = "race in another process"


@dataclass(frozen=True)
class Policy:
    """How plans are proposed.

    Attributes:
        name: ``enumerate`` tries every plan; ``tpe``, ``gp`` and ``random`` are Optuna's samplers
            over the plans' positions.
        patience: stop after this many trials in a row without a better plan; None: never.
        budget: the most trials of a sampler; None: as many as there are plans.
        seed: of the sampler.
    """

    name: str = "enumerate"
    patience: int | None = None
    budget: int | None = None
    seed: int = 0

    @classmethod
    def for_space(cls, num_plans: int) -> "Policy":
        """Enumerate up to a hundred plans; beyond, a Gaussian process with patience."""
        if num_plans <= LARGEST_ENUMERATED:
            return cls()
        return cls("gp", patience=25, budget=60)


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        plan: what was tried.
        latency_us: expected latency over the workload, or None when the plan failed.
        dropped: why it went no further (screened out, failed, quarantined), or empty.
        rounds: the samples, as `Samples.rounds`; of all but the first plan scaled by those of the
            incumbent beside it (`paired`).
    """

    plan: Plan
    latency_us: float | None
    dropped: str = ""
    rounds: tuple[tuple[float, ...], ...] = ()


class Journal:
    """One journal file, held by one run at a time.

    Attributes:
        notices: what the user should know about the state it was found in.

    Raises:
        InputError: another run holds it, or it is no regular file.
        EnvironmentFailure: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._file: JournalFile | None = JournalFile(path)
        self.notices = self._file.notices
        self._storage: BaseStorage = self._file.storage

    @classmethod
    def in_memory(cls) -> "Journal":
        """A journal that ends with the process, for simulations."""
        journal = cls.__new__(cls)
        journal._storage = InMemoryStorage()
        journal._file = None
        journal.notices = ()
        return journal

    def ledger(
        self, workload: str, plans: Sequence[Plan], policy: Policy, ranking: Sequence[Plan] = ()
    ) -> "Ledger":
        """Open the study of one workload, going on where an earlier run left it.

        Args:
            workload: its key.
            plans: the effective plans, the default first.
            policy: how to propose them.
            ranking: plans to try soonest after the default, likeliest first.
        """
        name = _study_name(workload, plans)
        sampler = SAMPLERS.get(policy.name, SAMPLERS["random"])(policy.seed)
        try:
            study = optuna.load_study(study_name=name, storage=self._storage, sampler=sampler)
        except KeyError:
            study = optuna.create_study(
                study_name=name, storage=self._storage, sampler=sampler, direction="minimize"
            )
        return Ledger(study, tuple(plans), policy, ranking)

    def verdict(self, workload: str, plans: Sequence[Plan]) -> dict[str, Any] | None:
        """What was decided for a workload over ``plans``, as it was stored; writes nothing."""
        study = self._study(workload, plans)
        return None if study is None else _verdict(study)

    def outcomes(self, workload: str, plans: Sequence[Plan]) -> list[Outcome]:
        """What was tried for a workload over ``plans``, each plan once; writes nothing."""
        study = self._study(workload, plans)
        return [] if study is None else _outcomes(study, plans)

    def _study(self, workload: str, plans: Sequence[Plan]) -> optuna.Study | None:
        try:
            return optuna.load_study(study_name=_study_name(workload, plans), storage=self._storage)
        except KeyError:
            return None

    def close(self) -> None:
        """Let other runs have the journal."""
        if self._file is not None:
            self._file.close()


class Ledger:
    """The trials of one workload.

    Enumerated plans enter the study when they are finished, each as one synced line of the journal:
    a kill leaves no half-begun trial behind, and keeping the books costs a few milliseconds a
    plan (asking, tagging and telling in turn would be eight synced lines).
    """

    def __init__(
        self, study: optuna.Study, plans: tuple[Plan, ...], policy: Policy, ranking: Sequence[Plan]
    ) -> None:
        self._study = study
        self._plans = plans
        self._policy = policy
        first = [plan for plan in ranking if plan in plans]
        self._order = tuple(dict.fromkeys((plans[0], *first, *plans)))
        self._asked: Trial | None = None
        # This run holds the journal, so a trial that is still running belongs to a run that ended.
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)

    @property
    def verdict(self) -> dict[str, Any] | None:
        """What was decided in an earlier run, as it was stored."""
        return _verdict(self._study)

    def decide(self, verdict: dict[str, Any]) -> None:
        """Store the verdict; from here on a resumed run measures nothing."""
        self._study.set_user_attr("verdict", verdict)

    @property
    def confirmed(self) -> dict[str, Any] | None:
        """What was decided over several processes, as it was stored."""
        stored: dict[str, Any] | None = self._study.user_attrs.get("confirmed")
        return stored

    def confirm(self, confirmed: dict[str, Any]) -> None:
        """Store what was decided over several processes."""
        self._study.set_user_attr("confirmed", confirmed)

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

    def outcomes(self) -> list[Outcome]:
        """Everything told so far, in the order it was tried, each plan once."""
        return _outcomes(self._study, self._plans)

    def pending(self) -> Iterator[Plan]:
        """Propose plans until the policy has enough; each is to be told before the next."""
        return self._enumerated() if self._policy.name == "enumerate" else self._sampled()

    def _enumerated(self) -> Iterator[Plan]:
        known = {outcome.plan for outcome in self.outcomes()}
        for plan in self._order:
            if self._out_of_patience():
                return
            if plan not in known:
                yield plan

    def _sampled(self) -> Iterator[Plan]:
        budget = min(self._policy.budget or len(self._plans), len(self._plans))
        if not self.outcomes():
            self._study.enqueue_trial({"plan": 0})
        # Samplers propose a plan again and again; it counts as an attempt but is not measured.
        for _ in range(4 * budget):
            known = {outcome.plan: outcome for outcome in self.outcomes()}
            if len(known) >= budget or self._out_of_patience():
                return
            self._asked = self._study.ask()
            plan = self._plans[self._asked.suggest_int("plan", 0, len(self._plans) - 1)]
            if plan in known:
                self._repeat(self._asked, known[plan])
            else:
                yield plan

    def _repeat(self, trial: Trial, outcome: Outcome) -> None:
        """Tell a sampler what it asked before: PRUNED, since it would propose a FAIL again."""
        if outcome.latency_us is not None:
            trial.report(outcome.latency_us, step=0)
        self._study.tell(trial, state=TrialState.PRUNED)

    def _out_of_patience(self) -> bool:
        if self._policy.patience is None:
            return False
        latencies = [math.inf if o.dropped else o.latency_us or math.inf for o in self.outcomes()]
        if min(latencies, default=math.inf) == math.inf:
            return False
        return len(latencies) - 1 - latencies.index(min(latencies)) >= self._policy.patience

    def tell(self, outcome: Outcome) -> None:
        """Put the outcome of the plan proposed last on disk.

        A dropped plan is PRUNED with its reason, not FAIL: Optuna's samplers ignore a FAIL and
        would propose the plan again.
        """
        stored = {
            "knobs": dict(outcome.plan),
            "latency_us": outcome.latency_us,
            "dropped": outcome.dropped,
            "rounds": [list(cases) for cases in outcome.rounds],
        }
        if self._asked is not None:
            self._asked.set_user_attr("outcome", stored)
            if outcome.dropped:
                self._repeat(self._asked, outcome)
            else:
                self._study.tell(self._asked, outcome.latency_us)
            self._asked = None
            return
        reported = {} if outcome.latency_us is None else {0: outcome.latency_us}
        self._study.add_trial(
            create_trial(
                state=TrialState.PRUNED if outcome.dropped else TrialState.COMPLETE,
                value=None if outcome.dropped else outcome.latency_us,
                params={"plan": self._plans.index(outcome.plan)},
                distributions={"plan": IntDistribution(0, len(self._plans) - 1)},
                user_attrs={"outcome": stored},
                intermediate_values=reported,
            )
        )


def _study_name(workload: str, plans: Sequence[Plan]) -> str:
    # A changed space gets a study of its own: Optuna refuses to resume into another one.
    space = hashlib.sha256(repr([dict(plan) for plan in plans]).encode()).hexdigest()[:8]
    return f"{workload}#{space}"


def _verdict(study: optuna.Study) -> dict[str, Any] | None:
    stored: dict[str, Any] | None = study.user_attrs.get("verdict")
    return stored


def _outcomes(study: optuna.Study, plans: Sequence[Plan]) -> list[Outcome]:
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    trials = study.get_trials(deepcopy=False, states=states)
    told = [_outcome(trial) for trial in trials if "outcome" in trial.user_attrs]
    return [outcome for outcome in told if outcome.plan in plans]


def _outcome(trial: FrozenTrial) -> Outcome:
    stored = trial.user_attrs["outcome"]
    return Outcome(
        plan=Plan.from_dict(stored["knobs"]),
        latency_us=stored["latency_us"],
        dropped=stored["dropped"],
        rounds=tuple(tuple(cases) for cases in stored["rounds"]),
    )
