"""Which plan a sampler of Optuna's would try next."""

__all__ = ["SAMPLERS", "Proposer"]

import contextlib
import warnings
from collections.abc import Callable, Sequence

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from mla_tune.plan.plan import Plan
from mla_tune.tuning.study.parameters import Parameters
from mla_tune.tuning.study.policy import Policy

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(
        seed=seed, multivariate=True, group=True, constant_liar=False
    ),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "brute force": lambda seed: optuna.samplers.BruteForceSampler(seed=seed),
}
ON_A_GRID = {"random", "brute force"}
"""Samplers that have no use for the order of numbers, and would draw those between them."""


class Proposer:
    """Asks a sampler, in a study of its own that ends with the process.

    What a sampler proposes is a point among the plans. Asked in the study on disk, it would stand
    there with numbers that no plan has, and take a synced line for each step of the asking. So the
    sampler is asked in memory, the plan nearest to its point is tried, and its trial is added to
    both studies when it has an outcome. A plan is never proposed twice.

    Args:
        policy: which sampler.
        parameters: of the study on disk.
        first: plans to begin with, in this order, whatever the sampler thinks.
    """

    def __init__(self, policy: Policy, parameters: Parameters, first: Sequence[Plan]) -> None:
        self._parameters = parameters
        is_grid = policy.name in ON_A_GRID
        self._distributions = parameters.grid if is_grid else parameters.distributions
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            sampler = SAMPLERS[policy.name](policy.seed)
        self._study = optuna.create_study(sampler=sampler, direction="minimize")
        for plan in first:
            self._study.enqueue_trial(parameters.of(plan))

    def learn(self, trial: FrozenTrial) -> None:
        """Take in a finished trial of the study on disk.

        One of a plan with a knob whose value nobody knows (see `Parameters`) is passed over: a
        Gaussian process would model no knob that is not in every trial.
        """
        if trial.params.keys() != self._distributions.keys():
            return
        self._study.add_trial(
            optuna.trial.create_trial(
                state=trial.state,
                value=trial.value,
                params=trial.params,
                distributions={name: self._distributions[name] for name in trial.params},
                constraints=trial.constraints,
            )
        )

    def propose(self, untried: Sequence[Plan]) -> Plan:
        """The one of ``untried`` that is nearest to the sampler's next point."""
        asked = self._study.ask(self._distributions)
        # The plan that is tried gets a trial of its own; of this one no sampler learns. Once its
        # grid is exhausted, BruteForceSampler would end the loop of an `optimize`.
        with contextlib.suppress(RuntimeError):
            self._study.tell(asked, state=TrialState.FAIL)
        return self._parameters.nearest(asked.params, untried)
