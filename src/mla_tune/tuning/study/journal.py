"""The studies of one table job, in a journal that survives kills."""

__all__ = ["LAUNCHES_OF", "Journal"]

import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study._frozen import FrozenStudy

from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.tuning.journal.file import JournalFile
from mla_tune.tuning.study.earlier import take_over
from mla_tune.tuning.study.ledger import Ledger, stored_verdict
from mla_tune.tuning.study.outcome import Outcome
from mla_tune.tuning.study.parameters import Parameters
from mla_tune.tuning.study.policy import Policy
from mla_tune.tuning.study.subject import Subject, earlier_study_name

optuna.logging.set_verbosity(optuna.logging.WARNING)

METRIC = "latency_us"
LAUNCHES_OF = "launches of "
"""Begins the key of the study of a search, beside that of its workload."""
ANEW = "measured anew as"
"""Of a study that was forgotten: the name of the one that is in its place."""


class Journal:
    """One journal file, held by one run at a time.

    Args:
        path: of the file.
        subject: what its studies are of.

    Attributes:
        notices: what the user should know about the state it was found in.

    Raises:
        InputError: another run holds it, or it is no regular file.
        EnvironmentFailure: it cannot be written.
    """

    def __init__(self, path: Path, subject: Subject | None = None) -> None:
        self._file: JournalFile | None = JournalFile(path)
        self.notices = self._file.notices
        self._storage: BaseStorage = self._file.storage
        self._subject = subject or Subject()

    @classmethod
    def in_memory(cls) -> "Journal":
        """A journal that ends with the process, for simulations."""
        return cls.over(InMemoryStorage(), Subject())

    @classmethod
    def over(cls, storage: BaseStorage, subject: Subject) -> "Journal":
        """The studies of one table in a storage that has those of others too."""
        journal = cls.__new__(cls)
        journal._storage = storage
        journal._file = None
        journal._subject = subject
        journal.notices = ()
        return journal

    def ledger(
        self,
        workload: str,
        plans: Sequence[Plan],
        policy: Policy,
        ranking: Sequence[Plan] = (),
        default_assignment: Plan = UNTUNED,
    ) -> Ledger:
        """Open the study of one workload, going on where an earlier run left it.

        Args:
            workload: its measured key.
            plans: the effective plans, the default first.
            policy: how to propose them.
            ranking: plans to try soonest after the default, likeliest first.
            default_assignment: as of `PlanSpace`.
        """
        study = self._begun(workload, plans, default_assignment)
        kept = Plan.from_dict(study.user_attrs["default"])
        ledger = Ledger(study, tuple(plans), Parameters(plans, kept), policy, ranking)
        earlier = self._load(earlier_study_name(workload, plans))
        if earlier is not None and ANEW not in earlier.user_attrs:
            take_over(earlier, study, ledger)
        return ledger

    def _begun(
        self, workload: str, plans: Sequence[Plan], default_assignment: Plan
    ) -> optuna.Study:
        """The study, with all that a kill may have left out of it."""
        name = self._name_now(self._subject.study_name(workload, plans))
        # Not `load_if_exists`: a journal takes a line for each study that was not created.
        study = self._load(name) or optuna.create_study(
            study_name=name, storage=self._storage, direction="minimize"
        )
        if study.metric_names is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.set_metric_names([METRIC])
        default = {"default": dict(plans[0].over(default_assignment))}
        known = study.user_attrs
        for name, fact in (default | {"shape": workload, **self._subject.facts}).items():
            if name not in known:
                study.set_user_attr(name, fact)
        return study

    def verdict(self, workload: str, plans: Sequence[Plan]) -> dict[str, Any] | None:
        """What was decided for a workload over ``plans``, as it was stored; writes nothing."""
        study = self._found(workload, plans)
        return None if study is None else stored_verdict(study.user_attrs)

    def outcomes(self, workload: str, plans: Sequence[Plan]) -> list[Outcome]:
        """What was tried for a workload over ``plans``, each plan once; writes nothing."""
        study = self._found(workload, plans)
        if study is None:
            return []
        return Ledger(study, tuple(plans), Parameters(plans), Policy(), ()).outcomes()

    def verdicts(self) -> dict[str, dict[str, Any]]:
        """What was decided of this table's workloads, by workload, whatever their plans."""
        facts = self._subject.facts.items()
        attributes = [study.user_attrs for study in self._storage.get_all_studies()]
        return {
            found["shape"]: verdict
            for found in attributes
            if "shape" in found and ANEW not in found and facts <= found.items()
            if (verdict := stored_verdict(found)) is not None
        }

    def with_verdict(self) -> frozenset[str]:
        """The workloads of this table of which anything was decided, whatever their plans."""
        return frozenset(self.verdicts())

    def forget(self, workloads: Collection[str]) -> None:
        """Have ``workloads`` measured anew, by their measured keys, in studies of their own.

        Those that there are stay in the journal. A run that is killed goes on with the new ones.
        """
        for study in self._storage.get_all_studies():
            if ANEW not in study.user_attrs and self._workload_of(study) in workloads:
                forgotten = optuna.load_study(study_name=study.study_name, storage=self._storage)
                forgotten.set_user_attr(ANEW, _next_name(study.study_name))

    def _workload_of(self, study: FrozenStudy) -> str | None:
        """What a study is of, or its search for launches; None for one of another table."""
        found, facts = study.user_attrs, self._subject.facts
        if "shape" not in found:  # of an earlier version, which had a file for each table
            return study.study_name.rpartition("#")[0] if self._file is not None else None
        is_own = facts.items() <= found.items()
        return str(found["shape"]).removeprefix(LAUNCHES_OF) if is_own else None

    def _name_now(self, name: str) -> str:
        """The name of the study that is in the place of ``name``: its own, or a later one's."""
        while (study := self._load(name)) is not None and ANEW in study.user_attrs:
            name = study.user_attrs[ANEW]
        return name

    def _found(self, workload: str, plans: Sequence[Plan]) -> optuna.Study | None:
        name = self._name_now(self._subject.study_name(workload, plans))
        earlier = self._load(earlier_study_name(workload, plans))
        is_known = earlier is not None and ANEW not in earlier.user_attrs
        return self._load(name) or (earlier if is_known else None)

    def _load(self, name: str) -> optuna.Study | None:
        try:
            return optuna.load_study(study_name=name, storage=self._storage)
        except KeyError:
            return None

    def close(self) -> None:
        """Let other runs have the journal."""
        if self._file is not None:
            self._file.close()


def _next_name(name: str) -> str:
    """Such as ``… #51bcd80d again``, then ``… again 2``."""
    first, _, number = name.partition(" again")
    return f"{first} again {int(number or 1) + 1}" if first != name else f"{name} again"
