"""Entries of a table in a few figures."""

__all__ = ["Summary"]

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mla_tune.table import Entry


@dataclass(frozen=True)
class Summary:
    """What is in a table.

    Attributes:
        num_entries: all of them.
        num_plans: those that name another plan than the default.
        gain: geometric mean of the default's time over the plan's, 1 where the default stays; None
            where no default could be measured.
    """

    num_entries: int
    num_plans: int
    gain: float | None

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> "Summary":
        """The figures of ``entries``."""
        compared = [entry for entry in entries if entry.default_us is not None]
        ratios = [e.speedup.median if e.plan and e.speedup else 1.0 for e in compared]
        gain = math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None
        return cls(len(entries), sum(bool(entry.plan) for entry in entries), gain)
