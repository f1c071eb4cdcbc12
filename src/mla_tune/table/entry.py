"""An entry of a table: what was decided for one workload, with the figures behind it."""

__all__ = ["CaseResult", "Entry", "Speedup"]

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    model_validator,
)

from mla_tune.errors import InputError
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes import BatchShape, Workload
from mla_tune.shapes.batch import LONGEST_KV_LEN
from mla_tune.shapes.served_reach import ServedReach


def _read_plan(value: Any) -> Any:
    """``default`` is the empty plan; anything else must be a mapping of knobs."""
    if value is None or value == "default":
        return UNTUNED
    if isinstance(value, dict):
        try:
            return _known_plan(value)
        except InputError as error:
            raise ValueError(str(error)) from None
    if isinstance(value, Plan):
        return value
    raise ValueError("a plan is a mapping of knobs, or the word default")


def _known_plan(knobs: dict[str, Any]) -> Plan:
    """A table has few plans, in many entries."""
    try:
        # With types: True is no 1.
        return _plan_of(tuple((name, type(value), value) for name, value in knobs.items()))
    except TypeError:  # what is no value of a knob need not be hashable
        return Plan.from_dict(knobs)


@lru_cache(maxsize=1024)
def _plan_of(knobs: tuple[tuple[str, type, Any], ...]) -> Plan:
    return Plan.from_dict({name: value for name, _, value in knobs})


def _read_unproven(value: Any) -> Any:
    """``default`` says that there is none: what is unproven is a plan to use instead of it."""
    return _read_plan(value) or None


def _write_plan(plan: Plan | None) -> Any:
    return dict(plan) if plan else "default"


def _read_by(parse: Callable[[str], object]) -> BeforeValidator:
    """Refuse what ``parse`` cannot read, and keep the text."""

    def readable(value: Any) -> Any:
        try:
            parse(str(value))
        except InputError as error:
            raise ValueError(error.what) from None
        return value

    return BeforeValidator(readable)


TablePlan = Annotated[
    InstanceOf[Plan], BeforeValidator(_read_plan), PlainSerializer(_write_plan, return_type=Any)
]
UnprovenPlan = Annotated[
    InstanceOf[Plan] | None,
    BeforeValidator(_read_unproven),
    PlainSerializer(_write_plan, return_type=Any),
]
ShapeKey = Annotated[str, _read_by(Workload.parse)]
BatchSpec = Annotated[str, _read_by(BatchShape.parse)]
KvLength = Annotated[int, Field(ge=1, le=LONGEST_KV_LEN)]
Latency = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    # Most entries are read without the schema, which takes time to build.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Speedup(_Part):
    """Default latency over the plan's: the median, and its 95 % interval from paired samples."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f}× ({self.low:.2f}–{self.high:.2f})"

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2


class CaseResult(_Part):
    """One case of an entry whose plan serves several.

    Attributes:
        kv_len: the KV length, or the longest of a ragged batch.
        shape: the batch spec of a ragged one; absent where all requests have ``kv_len``.
        weight: how often it is served; 0 for a guard.
        latency_us: median microseconds of the plan.
        default_us: and of the default.
        speedup: paired comparison.
    """

    kv_len: KvLength
    shape: BatchSpec | None = None
    weight: Weight
    latency_us: Latency
    default_us: Latency
    speedup: Speedup


class Entry(_Part):
    """The verdict on one workload.

    Attributes:
        shape: the workload's key, such as ``32q1s1k`` or ``32q1s{512,1k}``.
        weight: how often it is served, relative to the table's other entries.
        plan: the plan to use. One that sets any knob was measured beside the default and passed
            the gate; the empty plan, which a file spells ``default``, is the backend as it is.
        unproven: the best plan, where nothing could be proven against the default; `plan` is then
            the default, and the plugin leaves this one alone unless it is asked for it.
        default_plan: the values that the default was measured with; empty where no knob matters or
            nobody has said.
        ties: plans that could not be told from ``plan``.
        holds_to: of a graph's entry that was measured with guards: the longest KV length at which
            the plan was compared with the default.
        holds_ragged: of a graph's entry: whether the plan was compared with the default on ragged
            batches too.
        served: of a graph's entry that was guarded by a record of served steps: how far its guards
            went for that, and the share of the steps that lies beyond.
        latency_us: median microseconds of the plan, weighted over the cases where there are
            several; where the default could not be measured, of ``unproven``.
        default_us: of the default, likewise; absent where it could not be measured.
        speedup: paired comparison; absent where there was nothing to compare.
        processes: how many processes its latencies, speed-up and cases are from, with intervals
            over them. Absent where earlier versions measured: one process, and intervals of its
            rounds alone.
        cases: the same per KV length, where there are several; guards have a weight of 0.
        note: what a reader should know (no clean samples, failed plans, no knob that matters).
    """

    shape: ShapeKey
    weight: Weight = 1.0
    plan: TablePlan
    unproven: UnprovenPlan = None
    default_plan: TablePlan = UNTUNED
    ties: tuple[TablePlan, ...] = ()
    holds_to: KvLength | None = None
    holds_ragged: bool = False
    served: ServedReach | None = None
    latency_us: Latency
    default_us: Latency | None = None
    speedup: Speedup | None = None
    processes: Annotated[int, Field(ge=1)] | None = None
    cases: tuple[CaseResult, ...] = ()
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def _unproven_without_default(cls, data: Any) -> Any:
        """Read an entry without ``default_us`` as what it is.

        Earlier versions published the best of the other plans when the default had timed out, and
        a table written by hand need not have measured anything.
        """
        if not isinstance(data, dict) or data.get("default_us") is not None:
            return data
        try:
            plan = _read_plan(data.get("plan"))
        except ValueError:
            return data  # the field's own check names it
        if not plan or data.get("unproven") is not None:
            return data
        return data | {"plan": UNTUNED, "unproven": plan, "ties": (), "speedup": None}

    @model_validator(mode="after")
    def _one_plan(self) -> "Entry":
        if self.plan and self.unproven is not None:
            raise ValueError("an entry has a plan or an unproven one, not both")
        return self

    @model_validator(mode="after")
    def _holds_where_it_was_measured(self) -> "Entry":
        if self.holds_to is None:
            return self
        measured = max(shape.max_kv_len for shape in Workload.parse(self.shape).shapes)
        if self.holds_to < measured:
            raise ValueError(f"holds_to {self.holds_to} is below the KV length {measured}")
        return self

    @property
    def guards(self) -> list[int]:
        """KV lengths that it was measured at beside those of its shape."""
        known = [case.kv_len for case in self.cases if case.weight == 0 and case.shape is None]
        return known if self.holds_to is None else [*known, self.holds_to]

    def plans(self) -> Iterator[tuple[tuple[str | int, ...], Plan]]:
        """Every plan it names, with the keys under which it stands."""
        yield ("plan",), self.plan
        yield ("unproven",), self.unproven or UNTUNED
        yield ("default_plan",), self.default_plan
        for index, tie in enumerate(self.ties):
            yield ("ties", index), tie
