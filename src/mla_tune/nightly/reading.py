"""What one night measured of one entry."""

__all__ = ["Reading", "Rival", "differences", "now"]

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from mla_tune.table.entry import Latency, ShapeKey, Speedup, TablePlan

FORMAT = 1

Word = Annotated[str, StringConstraints(max_length=100, pattern=r"^[ -~]*$")]
Words = Annotated[dict[Word, Word], Field(max_length=100)]


class Rival(BaseModel):
    """A plan beside the default of an entry that keeps it, and how many times as fast it was."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    plan: TablePlan
    speedup: Speedup


class Reading(BaseModel):
    """One line of a history.

    Attributes:
        format: of the line.
        at: when it was measured.
        kind: ``full`` where the entry was tuned, ``sentinel`` where its plan was looked at again.
        shape: the entry's.
        plan: what the table published.
        latency_us, default_us: medians in microseconds, as in an entry.
        speedup: the default's latency over the plan's; absent where no plan is published.
        rival: of an entry that keeps the default, the plan that was looked at beside it, if any.
        software: versions by name.
        kernels: digests of the kernels and rules that decide how fast the backend is, by name.
        card: which GPU, as `mla_tune.device.card.card_hash` names it.
        seconds: what measuring it took, where that is known.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    at: AwareDatetime
    kind: Literal["full", "sentinel"]
    shape: ShapeKey
    plan: TablePlan
    latency_us: Latency
    default_us: Latency | None = None
    speedup: Speedup | None = None
    rival: Rival | None = None
    software: Words
    kernels: Words = {}
    card: Word
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @property
    def day(self) -> str:
        return self.at.date().isoformat()


def now() -> datetime:
    """The moment, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def differences(before: Reading, after: Reading) -> Iterator[str]:
    """What was another thing when ``after`` was measured: software, kernels, the plan."""
    for name, (old, new) in _changed(before.software, after.software):
        yield f"{name} {old or 'none'} → {new or 'none'}"
    for name, _ in _changed(before.kernels, after.kernels):
        yield f"{name} changed"
    if before.plan != after.plan:
        yield f"plan {before.plan or 'default'} → {after.plan or 'default'}"


def _changed(
    old: dict[str, str], new: dict[str, str]
) -> Iterator[tuple[str, tuple[str | None, str | None]]]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield name, (old.get(name), new.get(name))
