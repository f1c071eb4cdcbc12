"""The effective plans among all assignments of a backend's knobs."""

__all__ = ["KnobDomain", "PlanSpace", "effective_plans"]

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes.batch import BatchShape


@dataclass(frozen=True)
class KnobDomain:
    """The values to try for each knob, and the assignment an untuned backend uses.

    Attributes:
        default: a value for every knob that the backend has; it need not be among those to try.
        tried: the values by knob; one that is not named keeps the default's value.

    Raises:
        ValueError: there are values for a knob that ``default`` does not set.
    """

    default: Plan
    tried: Mapping[str, Sequence[int | str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for knob in self.tried.keys() - self.default.keys():
            if self.tried[knob]:
                raise ValueError(f"{knob} has values to try, and the default does not set it")

    def values(self, knob: str) -> tuple[int | str, ...]:
        """All values of a knob of the backend, the default's first."""
        return tuple(dict.fromkeys((self.default[knob], *self.tried.get(knob, ()))))

    def assignments(self) -> list[Plan]:
        """Every combination, the default first."""
        names = tuple(self.default)
        combinations = itertools.product(*map(self.values, names))
        return [Plan(**dict(zip(names, values, strict=True))) for values in combinations]


@dataclass(frozen=True)
class PlanSpace:
    """The effective plans of one (backend, workload), the default first.

    The default stands here with the values that the backend uses by itself, so that it can be
    compared with the others; as a decision (`mla_tune.table.Entry.plan`) it is the empty plan.
    ``assignments`` counts the knob assignments that were folded into them. ``default_assignment``
    has a value for every knob of the backend untuned, those that the default leaves open included;
    a recording does not know them.
    """

    plans: tuple[Plan, ...]
    assignments: int
    default_assignment: Plan = UNTUNED

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
    return PlanSpace(plans, len(assignments), domain.default)


def _without_idle_knobs(
    plan: Plan, domain: KnobDomain, described: Callable[[Plan], Hashable]
) -> Plan:
    """Unset the knobs whose values make no difference while the others stay as they are."""
    execution = described(plan)
    idle: list[str] = []
    for knob in plan:
        # Knobs already found idle vary along, so that two of them never hide each other.
        free = [*idle, knob]
        variants = itertools.product(*(domain.values(name) for name in free))
        if all(
            described(plan.having(**dict(zip(free, values, strict=True)))) == execution
            for values in variants
        ):
            idle.append(knob)
    return plan.without(*idle)
