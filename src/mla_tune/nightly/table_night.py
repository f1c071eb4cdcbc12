"""One table in one night: why it is due, what was seen of it, and what became of it."""

__all__ = ["LENGTH", "TableNight"]

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mla_tune.nightly.outcome import Outcome
from mla_tune.nightly.reading import Reading
from mla_tune.nightly.sentinel_look import drift
from mla_tune.nightly.staging import Staging
from mla_tune.nightly.target import Target
from mla_tune.table import Entry

LENGTH = timedelta(hours=12)
"""What was looked at so recently was looked at tonight: a night that was cut short goes on."""


@dataclass(eq=False)
class TableNight:
    """One table in one night; one card at a time is at it.

    Args:
        target: the table.
        staging: where it is tuned.
        at: when the night began, which its readings say.

    Attributes:
        outcome: what became of it so far.
        history: of the table, with what tonight has added.
        watched: the sentinels of tonight.
        tuned_on: which card decided each entry tonight, by shape.
    """

    target: Target
    staging: Staging
    at: datetime
    watched: Sequence[Entry] = ()
    tuned_on: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.outcome = Outcome(self.target.path, list(self.target.reasons))
        self.history = self.target.history
        if self.staging.has_begun and not self.is_due:
            self.outcome.reasons.append("a night before was cut short")

    @property
    def is_due(self) -> bool:
        """Whether it has to be tuned; else sentinels say whether that is so."""
        return bool(self.outcome.reasons)

    @property
    def tonight(self) -> datetime:
        """What has been seen since then has been seen tonight."""
        return self.at - LENGTH

    @property
    def left(self) -> list[Entry]:
        """The sentinels that are still to be looked at: a card that was lost has seen others."""
        return [entry for entry in self.watched if not self._seen_tonight(entry)]

    @property
    def suspects(self) -> list[Entry]:
        """What drifted tonight when it was last looked at, and has not been tuned since."""
        on_gpu, found = self.target.environment.is_cuda, []
        for entry in self.target.entries:
            tonight = self._seen_tonight(entry)
            if not tonight or tonight[-1].kind == "full" or tonight[-1].plan != entry.plan:
                continue
            if drift(entry, tonight[-1], self.before_tonight(entry), on_gpu=on_gpu):
                found.append(entry)
        return found

    def before_tonight(self, entry: Entry) -> list[Reading]:
        """The readings of ``entry`` that tonight's are compared with."""
        readings = self.history.by_shape.get(entry.shape, ())
        return [each for each in readings if each.at < self.tonight or each.kind == "full"]

    def keep(self, readings: Sequence[Reading]) -> None:
        """Put ``readings`` into the history, on disk when this returns.

        Raises:
            EnvironmentFailure, InputError: as of `History.append`.
        """
        self.history = self.history.append(readings)

    def _seen_tonight(self, entry: Entry) -> list[Reading]:
        readings = self.history.by_shape.get(entry.shape, ())
        return [reading for reading in readings if reading.at >= self.tonight]
