"""Plans, and the effective ones among all assignments of the knobs."""

__all__ = ["KnobDomain", "Plan", "PlanSpace", "effective_plans"]

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from mla_tune.errors import InputError
from mla_tune.shapes.batch import BatchShape


@dataclass(frozen=True)
class Plan:
    """One assignment of the knobs. A knob that is None is left as the backend has it.

    Attributes:
        reorder_batch_threshold: the longest query length, in tokens, that takes the decode path.
        num_kv_splits: into how many parts a decode kernel cuts the KV cache; -1 is CUTLASS_MLA's
            own choice. For FLASH_ATTN_MLA the cap (0: none) under which the kernel chooses.
        prefill_backend: the attention implementation of the prefill path.
    """

    reorder_batch_threshold: int | None = None
    num_kv_splits: int | None = None
    prefill_backend: str | None = None

    @classmethod
    def from_dict(cls, knobs: Mapping[str, Any]) -> "Plan":
        """Read a plan as a table or a journal stores it.

        Raises:
            InputError: an unknown knob, or a value of the wrong type.
        """
        for name, value in knobs.items():
            kind = str if name == "prefill_backend" else int
            if name not in KNOBS:
                raise InputError(f"unknown knob {name!r} in a plan", valid=", ".join(KNOBS))
            if not isinstance(value, kind) or isinstance(value, bool):
                raise InputError(
                    f"knob {name} is {value!r}", valid=f"a value of type {kind.__name__}"
                )
        return cls(**knobs)

    def as_dict(self) -> dict[str, Any]:
        """Only the knobs that are set, in the order of the fields."""
        return {name: value for name in KNOBS if (value := getattr(self, name)) is not None}

    def over(self, default: "Plan") -> "Plan":
        """Return this plan with its unset knobs taken from ``default``."""
        return Plan(**(default.as_dict() | self.as_dict()))

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.as_dict().items()) or "no knobs"


KNOBS: tuple[str, ...] = tuple(field.name for field in fields(Plan))


@dataclass(frozen=True)
class KnobDomain:
    """The values to try for each knob, and the assignment an untuned backend uses.

    An empty tuple says that the backend has no such knob. ``default`` sets every knob the
    backend has; its values need not be among those to try.
    """

    default: Plan
    reorder_batch_threshold: tuple[int, ...] = ()
    num_kv_splits: tuple[int, ...] = ()
    prefill_backend: tuple[str, ...] = ()

    def values(self, knob: str) -> tuple[Any, ...]:
        """All values of ``knob``, the default's first."""
        default = getattr(self.default, knob)
        return tuple(dict.fromkeys((default, *getattr(self, knob))))

    def assignments(self) -> list[Plan]:
        """Every combination, the default first."""
        combinations = itertools.product(*(self.values(knob) for knob in KNOBS))
        return [Plan(*values) for values in combinations]


@dataclass(frozen=True)
class PlanSpace:
    """The effective plans of one (backend, workload), the default first.

    ``assignments`` counts the knob assignments that were folded into them.
    """

    plans: tuple[Plan, ...]
    assignments: int

    @property
    def default(self) -> Plan:
        return self.plans[0]


Execution = Callable[[BatchShape, Plan], Hashable]


def effective_plans(
    domain: KnobDomain, shapes: Sequence[BatchShape], execution: Execution
) -> PlanSpace:
    """Fold every assignment of ``domain`` that leads to the same execution into one plan.

    ``execution(shape, plan)`` describes what a backend would really do for a plan in which all
    of its knobs are set: two plans with equal descriptions for every shape are one. Knobs
    that make no difference to a plan's execution are left out of it.
    """

    def described(plan: Plan) -> tuple[Hashable, ...]:
        return tuple(execution(shape, plan) for shape in shapes)

    assignments = domain.assignments()
    representatives: dict[tuple[Hashable, ...], Plan] = {}
    for plan in assignments:
        representatives.setdefault(described(plan), plan)
    plans = tuple(_without_idle_knobs(plan, domain, described) for plan in representatives.values())
    return PlanSpace(plans, len(assignments))


def _without_idle_knobs(
    plan: Plan, domain: KnobDomain, described: Callable[[Plan], Hashable]
) -> Plan:
    """Unset the knobs whose values make no difference while the others stay as they are."""
    execution = described(plan)
    idle: list[str] = []
    for knob in KNOBS:
        # Knobs already found idle vary along, so that two of them never hide each other.
        free = [*idle, knob]
        variants = itertools.product(*(domain.values(name) for name in free))
        if all(
            described(replace(plan, **dict(zip(free, values, strict=True)))) == execution
            for values in variants
        ):
            idle.append(knob)
    return replace(plan, **dict.fromkeys(idle))
