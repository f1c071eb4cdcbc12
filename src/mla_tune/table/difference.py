"""What changed between two tables: entry by entry, with ties marked."""

__all__ = ["EntryChange", "Kind", "TableDifference"]

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mla_tune.table.entry import Entry
from mla_tune.table.store import TableFile


class Kind(StrEnum):
    """What became of an entry.

    ``TIE`` is another plan that either table could not tell from its own: noise, not a decision.
    """

    SAME = "same"
    TIE = "tie"
    WON = "won"
    LOST = "lost"
    CHANGED = "changed"
    ADDED = "added"
    REMOVED = "removed"


@dataclass(frozen=True)
class EntryChange:
    """One workload in both tables; None where a table does not have it."""

    old: Entry | None
    new: Entry | None

    @property
    def shape(self) -> str:
        entry = self.new or self.old
        assert entry is not None
        return entry.shape

    @property
    def kind(self) -> Kind:
        old, new = self.old, self.new
        if old is None or new is None:
            return Kind.ADDED if old is None else Kind.REMOVED
        if old.plan == new.plan:
            return Kind.SAME
        if new.plan in old.ties or old.plan in new.ties:
            return Kind.TIE
        if not old.plan or not new.plan:
            return Kind.LOST if old.plan else Kind.WON
        return Kind.CHANGED

    @property
    def has_moved(self) -> bool:
        """Whether the same plan's speed-up has another interval, apart from the old one."""
        if self.kind is not Kind.SAME or self.old is None or self.new is None:
            return False
        old, new = self.old.speedup, self.new.speedup
        return old is not None and new is not None and (old.low > new.high or new.low > old.high)

    @property
    def is_guarded_less(self) -> bool:
        """Whether only a record says now how far the plan must not be slower."""
        old, new = self.old, self.new
        return new is not None and new.served is not None and (old is None or old.served is None)


@dataclass(frozen=True)
class TableDifference:
    """Two tables of one thing.

    Attributes:
        header: the first field in which the headers differ, with both values; None if they are
            true for the same.
        entries: every workload of either, in the order of the new table, then what it lost.
    """

    header: tuple[str, Any, Any] | None
    entries: tuple[EntryChange, ...]

    @classmethod
    def of(cls, old: TableFile, new: TableFile) -> "TableDifference":
        """Compare two tables, entry by entry, by the shapes that they stand under."""
        before = {entry.shape: entry for entry in old.entries}
        after = {entry.shape: entry for entry in new.entries}
        kept = [EntryChange(before.get(shape), entry) for shape, entry in after.items()]
        gone = [EntryChange(entry, None) for shape, entry in before.items() if shape not in after]
        return cls(old.header.first_difference(new.header), (*kept, *gone))

    @property
    def decisions(self) -> tuple[EntryChange, ...]:
        """The entries of which an engine would get something else, or that come or go."""
        noise = (Kind.SAME, Kind.TIE)
        return tuple(change for change in self.entries if change.kind not in noise)

    def counts(self) -> dict[Kind, int]:
        """How many entries there are of each kind, in the order of `Kind`."""
        kinds = [change.kind for change in self.entries]
        return {kind: kinds.count(kind) for kind in Kind if kind in kinds}

    def mean_speedups(self) -> tuple[float, float] | None:
        """Geometric means of old and new speed-up over the entries in both; None without any.

        An entry without a plan runs the default, which is as fast as the default.
        """
        both = [(c.old, c.new) for c in self.entries if c.old is not None and c.new is not None]
        if not both:
            return None
        return _mean(old for old, _ in both), _mean(new for _, new in both)


def _mean(entries: Iterable[Entry]) -> float:
    return statistics.geometric_mean(
        entry.speedup.median if entry.plan and entry.speedup is not None else 1.0
        for entry in entries
    )
