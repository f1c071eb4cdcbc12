"""The rounds of one later process, as the journal keeps them."""

__all__ = ["Race", "read_rounds", "stored_rounds"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.plan import Plan

Rounds = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Race:
    """A plan beside the default in one process.

    Attributes:
        plan: which.
        default_rounds, plan_rounds: as `Samples.rounds`, in microseconds.
        remarks: what befell the device meanwhile.
        card: which of several devices it was; None where there is one.
    """

    plan: Plan
    default_rounds: Rounds
    plan_rounds: Rounds
    remarks: tuple[str, ...] = ()
    card: str | None = None

    @property
    def samples(self) -> tuple[Samples, Samples]:
        """Of the default, and of the plan."""
        return Samples(self.default_rounds), Samples(self.plan_rounds)

    def as_dict(self) -> dict[str, Any]:
        """What is stored."""
        stored = {
            "knobs": dict(self.plan),
            "default": stored_rounds(self.default_rounds),
            "plan": stored_rounds(self.plan_rounds),
            "remarks": self.remarks,
        }
        return stored if self.card is None else stored | {"card": self.card}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Race":
        """What was stored."""
        return cls(
            Plan.from_dict(stored["knobs"]),
            read_rounds(stored["default"]),
            read_rounds(stored["plan"]),
            tuple(stored["remarks"]),
            stored.get("card"),
        )


def stored_rounds(rounds: Rounds) -> list[list[float | None]]:
    """Rounds as they are stored: None for a case that was left out, since JSON has no NaN."""
    return [[None if math.isnan(us) else us for us in cases] for cases in rounds]


def read_rounds(stored: Sequence[Sequence[float | None]]) -> Rounds:
    """What `stored_rounds` has made."""
    return tuple(tuple(math.nan if us is None else us for us in cases) for cases in stored)
