"""What became of one table in a night."""

__all__ = ["Outcome", "Status"]

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Status(StrEnum):
    """``LEFT`` is due and was not done for want of time; the next night goes on."""

    SAME = "as it was"
    CHANGED = "changed"
    NEW = "new"
    LEFT = "left for another night"
    FAILED = "failed"


@dataclass
class Outcome:
    """What became of one table.

    Attributes:
        path: the table.
        reasons: why it was due to be tuned, if it was.
        num_looked: entries that were looked at again.
        num_tuned: entries that were tuned.
        seconds: how long that took.
        status: what became of it.
        notes: what went wrong, a line each.
    """

    path: Path
    reasons: list[str] = field(default_factory=list)
    num_looked: int = 0
    num_tuned: int = 0
    seconds: float = 0.0
    status: Status = Status.SAME
    notes: list[str] = field(default_factory=list)

    def fail(self, why: str) -> None:
        """Note what went wrong."""
        self.status = Status.FAILED
        self.notes.append(why)
