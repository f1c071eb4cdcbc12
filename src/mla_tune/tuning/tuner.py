"""One (backend, workload): from its effective plans to a verdict."""

__all__ = ["Tuner"]

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from mla_tune.measuring.bench import Bench
from mla_tune.plan.compilation import NOTHING_COMPILED, Compilation
from mla_tune.plan.plan import Plan
from mla_tune.plan.space import PlanSpace
from mla_tune.shapes import BatchShape, RequestGroup, Workload
from mla_tune.table import Entry
from mla_tune.tuning.between import Trials
from mla_tune.tuning.confirmation import Confirmation
from mla_tune.tuning.decide import MIN_ROUNDS
from mla_tune.tuning.entry import outlasts_doubt, proven_plan, published_entry
from mla_tune.tuning.launches import ALL_LAUNCHES, Launches
from mla_tune.tuning.loaded import LoadedWorkload
from mla_tune.tuning.nominee import Nominee, is_own_card
from mla_tune.tuning.observers import Observer, SilentObserver
from mla_tune.tuning.process_spread import MEASURED_SPREAD, WEIGHT
from mla_tune.tuning.quarantine import Quarantine, Ward
from mla_tune.tuning.screening import Screening
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.speedups import WIDEST
from mla_tune.tuning.study import Journal, Ledger, Outcome, Policy

ENUMERATE = Policy().name


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
        card: which of several devices measures; None where there is one.
        remark: what entries measured here are to say of the device.
        launches: what is tried of a plan space.

    Attributes:
        compiled: what was compiled ahead so far.
    """

    bench: Bench
    journal: Journal
    quarantine: Quarantine
    ward: Ward
    settings: Settings = field(default_factory=Settings)
    observer: Observer = field(default_factory=SilentObserver)
    clock: Callable[[], float] = time.monotonic
    card: str | None = None
    remark: str = ""
    launches: Launches = ALL_LAUNCHES
    compiled: Compilation = field(default=NOTHING_COMPILED, init=False)
    _screened_last: Workload | None = field(default=None, init=False)

    def tune(
        self, workload: Workload, previous: Entry | None = None, neighbour: Entry | None = None
    ) -> Entry:
        """Find the plan for ``workload``, going on where an earlier run left it.

        Args:
            workload: what to tune for.
            previous: last night's entry, for the ranking and for ties. Where it is proven, for the
                same software, it stays until it is clearly below the gate, and outlasts a
                confirmation that ends in doubt.
            neighbour: the entry of a similar workload, for the ranking.

        Returns:
            The entry as this process has it: a plan in it is to be a `nominee`. Nothing is measured
            when the study already has a verdict for the same gate and weights. A plan that other
            processes have refused is out, and what else was tried is confirmed. Where the samples
            were too few or too noisy for a verdict, the study gets none, and the next run confirms
            again.

        Raises:
            WorkloadFailure: not one plan runs.
        """
        space = self.space(workload)
        plans = space.plans
        policy = self._policy(plans)
        ranking = [*_ranking(previous), *_ranking(neighbour)]
        ledger = self.journal.ledger(
            *(workload.measured_key, plans, policy, ranking), space.default_assignment
        )
        self.observer.planned(workload, len(plans))
        terms = self._terms(workload)
        decided = _decided(ledger.verdict, terms, workload)
        if decided is not None and self._is_whole(workload, decided, ledger, previous):
            self.observer.remembered(workload, ledger.told_last)
            self._tell_winner(workload, decided, ledger)
            return decided
        entry = self._measured(workload, plans, ledger, previous)
        self._tell_winner(workload, entry, ledger)
        return entry

    def _measured(
        self, workload: Workload, plans: Sequence[Plan], ledger: Ledger, previous: Entry | None
    ) -> Entry:
        """What this process finds; the verdict, if there is one, is kept in the study."""
        began_s = self.clock()
        loaded = self._load(workload, plans[0])
        if self._policy(plans).name == ENUMERATE:
            self._compile(loaded, ledger, plans)
        Screening(loaded, ledger, self.settings, self.observer).run()
        entry, is_proven = self._confirmed(loaded, ledger, previous)
        if is_proven:
            entry = self._remarked(entry, ledger)
            verdict = {"terms": self._terms(workload), "entry": entry.model_dump(mode="json")}
            card = {} if self.card is None else {"card": self.card}
            ledger.decide(verdict | {"seconds": round(self.clock() - began_s, 1)} | card)
        return entry

    def _tell_winner(self, workload: Workload, entry: Entry, ledger: Ledger) -> None:
        """Say what the kernel of the entry's plan takes of the GPU, where the study knows."""
        for outcome in ledger.outcomes() if entry.plan else ():
            if outcome.plan == entry.plan and outcome.resources is not None:
                self.observer.won(workload, entry.plan, outcome.resources)

    def plan_space(self, workload: Workload) -> PlanSpace:
        """All plans of ``workload``, whatever their launch.

        Raises:
            WorkloadFailure: the bench has ended, and does not come back.
        """
        return self.bench.plan_space(workload.shapes)

    def space(self, workload: Workload) -> PlanSpace:
        """What is tried of `plan_space`. Raises as it does."""
        whole = self.plan_space(workload)
        return replace(whole, plans=self.launches.among(whole.plans, workload.rows))

    def screened(self, workload: Workload, study: str, plans: Sequence[Plan]) -> list[Outcome]:
        """Screen ``plans`` and decide nothing, going on where an earlier run left it.

        Args:
            workload: which; it is loaded where plans are left to be tried.
            study: the name that the trials are kept under.
            plans: what is tried, the default first.

        Raises:
            WorkloadFailure: it does not load.
        """
        assignment = self.plan_space(workload).default_assignment
        ledger = self.journal.ledger(study, plans, Policy(), (), assignment)
        if not {outcome.plan for outcome in ledger.outcomes()} >= set(plans):
            self.observer.planned(workload, len(plans))
            loaded = LoadedWorkload(workload, plans[0], self.bench, self.quarantine, self.ward)
            if self._screened_last != workload:
                loaded = self._load(workload, plans[0])
                self._screened_last = workload
            self._compile(loaded, ledger, plans)
            Screening(loaded, ledger, self.settings, self.observer).run()
        return ledger.outcomes()

    def _load(self, workload: Workload, default: Plan) -> LoadedWorkload:
        self._screened_last = None
        self.bench.load(workload)
        return LoadedWorkload(workload, default, self.bench, self.quarantine, self.ward)

    def _compile(self, loaded: LoadedWorkload, ledger: Ledger, plans: Sequence[Plan]) -> None:
        """Compile what is left to be tried, and put what cannot be compiled into quarantine."""
        tried = {outcome.plan for outcome in ledger.outcomes()}
        left = [plan for plan in plans if plan not in tried and not loaded.quarantined(plan)]
        if left:
            self.observer.compiling(loaded.workload, len(left))
        done = self.bench.compile(left) if left else NOTHING_COMPILED
        for plan, failure in done.failures.items():
            loaded.filed(plan, failure)
        if done.kernels:
            self.compiled += done
            self.observer.compiled(loaded.workload, done)

    def _policy(self, plans: Sequence[Plan]) -> Policy:
        return self.settings.policy or Policy.for_space(len(plans))

    def _is_whole(
        self, workload: Workload, entry: Entry, ledger: Ledger, previous: Entry | None
    ) -> bool:
        """Whether a verdict of before is final, or can become so on this device.

        A plan that won on another card, and was not raced there in other processes, is confirmed
        anew: two cards are not mixed in one verdict.
        """
        measured = (ledger.verdict or {}).get("card")
        if not entry.plan or is_own_card(measured, self.card):
            return True
        return self.nominee(workload, entry, previous).decided is not None

    def _remarked(self, entry: Entry, ledger: Ledger) -> Entry:
        """``entry`` with what is to be said of plans that were refused, and of the device."""
        note = ". ".join(filter(None, (*ledger.refused.values(), entry.note, self.remark)))
        return entry if note == entry.note else entry.model_copy(update={"note": note})

    def _confirmed(
        self, loaded: LoadedWorkload, ledger: Ledger, previous: Entry | None
    ) -> tuple[Entry, bool]:
        """The entry that a confirmation ends in, and whether there is a verdict behind it."""
        refused = ledger.refused
        if previous is not None and previous.plan in refused:
            previous = None
        favourite = previous.plan or previous.unproven if previous is not None else None
        confirmation = Confirmation(
            loaded,
            ledger.outcomes(),
            refused,
            favourite,
            proven_plan(previous),
            self.settings,
            self.observer,
            self.clock,
        )
        contest = confirmation.run()
        failures, default = confirmation.failures, loaded.default
        doubt = contest.verdict().doubt
        proven = previous if previous is not None and default not in failures else None
        if (
            doubt
            and proven is not None
            and outlasts_doubt(proven, loaded.workload, contest, failures)
        ):
            self.observer.kept(loaded.workload, doubt)
            return proven, False
        return published_entry(loaded.workload, contest, default, failures), not doubt

    def decided(self, workload: Workload) -> Entry | None:
        """What an earlier run decided on the same terms, if it did; measures nothing.

        Raises:
            WorkloadFailure: the bench has ended, and does not come back.
        """
        plans = self.space(workload).plans
        return _decided(
            self.journal.verdict(workload.measured_key, plans), self._terms(workload), workload
        )

    def trials(self, workload: Workload) -> Trials:
        """What has been tried for ``workload`` so far, in this run or an earlier one.

        Raises:
            WorkloadFailure: as `decided`.
        """
        plans = self.space(workload).plans
        return Trials(workload, plans[0], self.journal.outcomes(workload.measured_key, plans))

    def default_at(self, kv_len: int) -> Plan | None:
        """What stands for the backend untuned for one request of ``kv_len`` tokens.

        None where the bench does not know such shapes.

        Raises:
            WorkloadFailure: as `decided`.
        """
        try:
            return self.bench.plan_space([BatchShape.of([RequestGroup(1, kv_len, 1)])]).default
        except KeyError:
            return None

    def nominee(self, workload: Workload, entry: Entry, previous: Entry | None = None) -> Nominee:
        """A workload's ``entry``, whose plan won in one process, with what others have seen of it.

        ``previous`` is last night's, as in `tune`.

        Raises:
            WorkloadFailure: as `decided`.
        """
        plans = self.space(workload).plans
        ledger = self.journal.ledger(workload.measured_key, plans, self._policy(plans))
        over_processes = {
            "processes": self.settings.processes,
            "spread": MEASURED_SPREAD,
            "weight": WEIGHT,
        }
        terms = self._terms(workload) | over_processes
        is_published = entry.plan == proven_plan(previous)
        return Nominee(workload, entry, plans[0], ledger, terms, is_published, self.card)

    def _terms(self, workload: Workload) -> dict[str, object]:
        """What a verdict depends on beside the samples."""
        return {
            "min_speedup": self.settings.min_speedup,
            "weights": [case.weight for case in workload.cases],
            "min_rounds": MIN_ROUNDS,
            "widest": WIDEST,
        }


def _decided(
    verdict: Mapping[str, Any] | None, terms: Mapping[str, object], workload: Workload
) -> Entry | None:
    """The verdict of an earlier run, if it was on the same terms and still is an entry.

    Why ``workload`` is guarded so far is today's: a record that grows does not change a verdict.
    """
    if verdict is None or verdict["terms"] != terms:
        return None
    try:
        entry = Entry.model_validate(verdict["entry"])
    except ValidationError:
        return None  # by a version that wrote other entries: its trials are confirmed again
    return entry.model_copy(update={"served": workload.served})


def _ranking(entry: Entry | None) -> list[Plan]:
    """Put first what was good before: an early good incumbent screens out the rest sooner."""
    plans = (entry.plan, entry.unproven, *entry.ties) if entry is not None else ()
    return [plan for plan in plans if plan]
