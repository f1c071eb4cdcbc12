"""The policies that are compared, and the size of space from which a sampler acts."""

from mla_tune.tuning.study import Policy

AS_A_RUN = "as a run does"
UNRANKED = "all, in the order of the space"
HALF = "half, at random"
SHARE = 0.5
"""Of the plans a sampler may try: at all of them it would be an enumeration with repeats."""

SAMPLERS = ("tpe", "gp")
START_UP = 10
"""Trials that these draw at random before they learn anything (``n_startup_trials``)."""

ACTS_FROM = 2 * (START_UP + 1)
"""Plans from which on half of them are more than that."""


def policies(num_plans: int, seed: int) -> dict[str, Policy]:
    """The policies to compare for a space of ``num_plans``; samplers where they act."""
    budget = _budget(num_plans)
    found = {
        AS_A_RUN: Policy(),
        UNRANKED: Policy(),
        HALF: Policy("random", budget=budget, seed=seed),
    }
    if num_plans >= ACTS_FROM:
        found |= {sampled(name): Policy(name, budget=budget, seed=seed) for name in SAMPLERS}
    return found


def sampled(name: str) -> str:
    """What a sampler is called as a policy."""
    return f"half, by {name.upper()}"


def _budget(num_plans: int) -> int:
    return max(2, round(SHARE * num_plans))
