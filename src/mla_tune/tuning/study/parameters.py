"""The knobs of a plan space as parameters of a study."""

__all__ = ["Parameters"]

import math
from collections.abc import Mapping, Sequence

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from mla_tune.plan.knob import KNOBS
from mla_tune.plan.plan import UNTUNED, Plan

Value = int | str


class Parameters:
    """Each knob in which plans differ is a parameter, under its own name.

    A plan that leaves a knob open stands with the value that the knob then has: every trial of a
    study has every parameter. Were idle knobs left out, a plot of parallel coordinates would show
    no trial at all where some plans take the decode path and the others the prefill path, a
    Gaussian process would model what all trials have in common, nothing, and fANOVA would weigh
    that. The plan itself, without idle knobs, is an attribute of the trial.

    A number is one on a logarithmic scale, as the knobs are tried; with zero or less among its
    values (no cap, vLLM's own choice) it is a category, and so are names.

    Args:
        plans: the plan space, the default first.
        default_assignment: a value for every knob of the backend untuned. A knob that is not in it
            either is left out of the trials of plans that leave it open.
    """

    def __init__(self, plans: Sequence[Plan], default_assignment: Plan = UNTUNED) -> None:
        self._default = plans[0].over(default_assignment)
        assignments = [plan.over(self._default) for plan in plans]
        self._values = {
            knob: _sorted({plan[knob] for plan in assignments if knob in plan}) for knob in KNOBS
        }
        self._values = {knob: values for knob, values in self._values.items() if len(values) > 1}
        self.distributions = {knob: _distribution(values) for knob, values in self._values.items()}

    @property
    def grid(self) -> dict[str, BaseDistribution]:
        """The parameters with the values that plans have and no other, as categories."""
        return {knob: CategoricalDistribution(values) for knob, values in self._values.items()}

    def of(self, plan: Plan) -> dict[str, Value]:
        """The parameters of a trial of ``plan``."""
        assignment = plan.over(self._default)
        return {knob: assignment[knob] for knob in self.distributions if knob in assignment}

    def nearest(self, proposed: Mapping[str, Value], plans: Sequence[Plan]) -> Plan:
        """The one of ``plans`` that is nearest to what a sampler has proposed.

        A plan space is no product of its knobs' values: what does not fit the GPU or comes to the
        same is not in it. Distances are the sums of those along each knob, as a share of its range.
        """
        distances = [self._distance(proposed, self.of(plan)) for plan in plans]
        return plans[int(np.argmin(distances))]

    def _distance(self, one: Mapping[str, Value], other: Mapping[str, Value]) -> float:
        return sum(
            _apart(one.get(knob), other.get(knob), distribution)
            for knob, distribution in self.distributions.items()
        )


def _sorted(values: set[Value]) -> list[Value]:
    return sorted(values, key=lambda value: (isinstance(value, str), value))


def _distribution(values: Sequence[Value]) -> BaseDistribution:
    low, high = values[0], values[-1]
    if isinstance(low, int) and isinstance(high, int) and low > 0:
        return IntDistribution(low, high, log=True)
    return CategoricalDistribution(values)


def _apart(one: Value | None, other: Value | None, distribution: BaseDistribution) -> float:
    if not isinstance(distribution, IntDistribution) or one is None or other is None:
        return float(one != other)
    assert isinstance(one, int)
    assert isinstance(other, int)
    return abs(math.log(one / other)) / math.log(distribution.high / distribution.low)
