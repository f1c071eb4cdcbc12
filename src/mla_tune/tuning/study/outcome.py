"""What became of a trial, and how a trial of Optuna's holds it."""

__all__ = ["Outcome", "outcome_of", "slowest_case", "trial_of"]

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.kernel_resources import KernelResources
from mla_tune.plan.plan import Plan
from mla_tune.tuning.decide import SLOWEST_CASE
from mla_tune.tuning.race import Rounds, read_rounds, stored_rounds
from mla_tune.tuning.study.parameters import Parameters

SLOWED = "slower at some KV length"
"""A constraint of Optuna's, violated above zero: such a plan cannot be published."""


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        plan: what was tried.
        latency_us: expected latency over the workload, or None when the plan failed.
        dropped: why it went no further (screened out, failed, quarantined), or empty.
        rounds: the samples, as `Samples.rounds`; of all but the first plan scaled by those of the
            incumbent beside it (`paired`).
        resources: what the plan's decode kernel takes of the GPU, where that is known.
    """

    plan: Plan
    latency_us: float | None
    dropped: str = ""
    rounds: tuple[tuple[float, ...], ...] = ()
    resources: KernelResources | None = None


def trial_of(
    outcome: Outcome, parameters: Parameters, default: Outcome | None, begun: datetime | None = None
) -> FrozenTrial:
    """The finished trial for ``outcome``.

    A plan that was screened out ran, so its trial is COMPLETE with the latency of its few samples:
    importances, plots and samplers see it. A plan without a latency is PRUNED and not FAIL: a
    sampler then learns that the region is bad.

    Args:
        outcome: what became of a plan.
        parameters: of the study.
        default: the default's outcome, for the constraint.
        begun: when the plan was proposed.
    """
    told = {
        "plan": str(outcome.plan),
        "outcome": {
            "knobs": dict(outcome.plan),
            "latency_us": outcome.latency_us,
            "dropped": outcome.dropped,
            "rounds": stored_rounds(outcome.rounds),
        },
    }
    if outcome.resources is not None:
        told |= asdict(outcome.resources)
    ran = outcome.latency_us is not None
    params = parameters.of(outcome.plan)
    trial = create_trial(
        state=TrialState.COMPLETE if ran else TrialState.PRUNED,
        value=outcome.latency_us,
        params=params,
        distributions={name: parameters.distributions[name] for name in params},
        user_attrs=({"why": outcome.dropped} if outcome.dropped else {}) | told,
        constraints=_constraints(outcome, default),
    )
    if begun is not None:
        trial.datetime_start = begun
    return trial


def _constraints(outcome: Outcome, default: Outcome | None) -> dict[str, float]:
    if not outcome.rounds or default is None or not default.rounds or len(outcome.rounds[0]) < 2:
        return {}
    return {SLOWED: slowest_case(outcome.rounds, default.rounds) - 1 / SLOWEST_CASE}


def slowest_case(rounds: Rounds, default_rounds: Rounds) -> float:
    """The largest ratio of the fastest sample to the default's median, over the cases sampled."""
    pairs = [
        (Samples(rounds).of_case(number), Samples(default_rounds).of_case(number))
        for number in range(len(rounds[0]))
    ]
    return float(max(min(own) / statistics.median(base) for own, base in pairs if own and base))


def outcome_of(trial: FrozenTrial) -> Outcome | None:
    """What a finished trial says; None where it says nothing of ours."""
    stored: Mapping[str, Any] | None = trial.user_attrs.get("outcome")
    if stored is None or trial.state not in {TrialState.COMPLETE, TrialState.PRUNED}:
        return None
    return Outcome(
        plan=Plan.from_dict(stored["knobs"]),
        latency_us=stored["latency_us"],
        dropped=stored["dropped"],
        rounds=read_rounds(stored["rounds"]),
        resources=_resources_of(trial),
    )


def _resources_of(trial: FrozenTrial) -> KernelResources | None:
    """None where the trial has none, as those of before."""
    names = KernelResources.__dataclass_fields__
    if not names.keys() <= trial.user_attrs.keys():
        return None
    return KernelResources(**{name: trial.user_attrs[name] for name in names})
