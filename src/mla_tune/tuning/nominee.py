"""A plan that won in one process, and what other processes saw of it."""

__all__ = ["Nominee", "is_own_card"]

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from mla_tune.plan.plan import Plan
from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.tuning.confirmed import confirmed_entry, failed_entry, is_open, refusal
from mla_tune.tuning.decide import is_far_from_loss
from mla_tune.tuning.look import Look, look_at, look_in
from mla_tune.tuning.race import Race, Rounds
from mla_tune.tuning.study import Ledger


@dataclass(eq=False)
class Nominee:
    """An entry whose plan waits for other processes.

    Args:
        workload: what it is for.
        entry: as the first process has it.
        default: the default plan.
        ledger: the workload's study, where races are kept.
        terms: what the decision depends on beside the samples.
        is_published: whether the table has the plan already.
        card: which of several devices measures; races on another one do not count.

    Attributes:
        looks: what each process has seen, the first one's included.
        failure: the plan that failed in another process, and how.
        refusal: what the processes saw of the plan, if `decide` refused it and the workload is to
            be tuned again without it; or nothing.
    """

    workload: Workload
    entry: Entry
    default: Plan
    ledger: Ledger
    terms: Mapping[str, object]
    is_published: bool = False
    card: str | None = None
    looks: list[Look] = field(init=False)
    failure: tuple[Plan, str] | None = None
    refusal: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self._races = [
            race
            for race in self.ledger.races()
            if race.plan == self.entry.plan and is_own_card(race.card, self.card)
        ]
        self.looks = [look_in(self.entry), *map(self._look, self._races)]

    def _look(self, race: Race) -> Look:
        return look_at(*race.samples, self.workload.shares())

    @property
    def decided(self) -> Entry | None:
        """What an earlier run decided from the same first process on the same terms."""
        stored = self.ledger.confirmed
        if stored is None or stored["terms"] != self.terms or stored["nominee"] != self._dumped:
            return None
        try:
            return Entry.model_validate(stored["entry"])
        except ValidationError:
            return None  # by a version that wrote other entries

    @property
    def raced(self) -> tuple[int, ...]:
        """The numbers of the cases that other processes have to see.

        All but guards that the first one saw far from a loss.
        """
        seen = self.looks[0].cases or (None,)
        return tuple(
            number
            for number, (case, look) in enumerate(zip(self.workload.cases, seen, strict=True))
            if not (case.is_guard and look is not None and is_far_from_loss(look.speedup))
        )

    def widened(self, rounds: Rounds) -> Rounds:
        """Rounds of the `raced` cases as rounds of all: NaN for those that were left out."""
        places = {case: place for place, case in enumerate(self.raced)}
        every = range(len(self.workload.cases))
        return tuple(
            tuple(cases[places[number]] if number in places else math.nan for number in every)
            for cases in rounds
        )

    def add(self, race: Race) -> None:
        """Put the rounds of one more process on disk."""
        self.ledger.keep_race(race)
        self._races.append(race)
        self.looks.append(self._look(race))

    def wants_another(self, processes: int, most: int, spread: float, min_speedup: float) -> bool:
        """Whether one more process has to look; ``most`` where the gate is in the interval."""
        if self.failure is not None or len(self.looks) >= most:
            return False
        return len(self.looks) < processes or is_open(self.looks, spread, min_speedup)

    def decide(self, spread: float, min_speedup: float) -> Entry:
        """The entry over all processes; it is stored too."""
        refused: dict[Plan, str] = {}
        if self.failure is not None:
            entry = failed_entry(self.entry, *self.failure)
        else:
            asked = (self.looks, spread, min_speedup)
            entry = confirmed_entry(self.entry, *asked, is_published=self.is_published)
            if seen := refusal(self.entry.plan, *asked, is_published=self.is_published):
                refused[self.entry.plan] = seen
        said = dict.fromkeys(remark for race in self._races for remark in race.remarks)
        note = ". ".join([*filter(None, [entry.note]), *said])
        entry = entry.model_copy(update={"note": note})
        stored = {"terms": self.terms, "nominee": self._dumped, "entry": _dump(entry)}
        self.ledger.confirm(stored, refused)
        self.refusal = "" if self.ledger.verdict else refused.get(self.entry.plan, "")
        return entry

    @property
    def _dumped(self) -> dict[str, Any]:
        return _dump(self.entry)


def is_own_card(measured: str | None, here: str | None) -> bool:
    """Whether what card ``measured`` showed may be in one verdict with what this one shows.

    None is the only device of a run, which keeps no note of its card.
    """
    return measured is None or here is None or measured == here


def _dump(entry: Entry) -> dict[str, Any]:
    return entry.model_dump(mode="json")
