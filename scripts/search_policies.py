"""The policies that are compared, and the size of space from which a sampler is one of its own."""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from mla_tune.plan.plan import Plan
from mla_tune.tuning.study import Journal, Outcome, Policy

AS_A_RUN = "as a run does"
UNRANKED = "all, in the order of the space"
HALF = "half, at random"
SHARE = 0.5
"""Of the plans a sampler may try: at all of them it would be an enumeration with repeats."""

SAMPLERS = ("tpe", "gp")
SIZES = (10, 14, 16, 18, 20, 22, 26)
"""Numbers of plans for which it is tried out whether a sampler acts."""


def policies(num_plans: int, seed: int, acts_from: Mapping[str, int]) -> dict[str, Policy]:
    """The policies to compare for a space of ``num_plans``.

    A sampler is among them from the size on that ``acts_from`` says; without one, never.
    """
    budget = _budget(num_plans)
    found = {
        AS_A_RUN: Policy(),
        UNRANKED: Policy(),
        HALF: Policy("random", budget=budget, seed=seed),
    }
    for name, size in acts_from.items():
        if num_plans >= size:
            found[f"half, by {name}"] = Policy(name, budget=budget, seed=seed)
    return found


def _budget(num_plans: int) -> int:
    return max(2, round(SHARE * num_plans))


def share_of_its_own(name: str, num_plans: int, seeds: int) -> float:
    """Share of seeds in which a sampler proposes a half that is not the one drawn at random.

    Optuna's samplers begin with ten trials at random. The latencies are made up, with one valley:
    no proposal within that start-up depends on them.
    """
    return sum(_is_its_own(name, num_plans, seed) for seed in range(seeds)) / seeds


def _is_its_own(name: str, num_plans: int, seed: int) -> bool:
    pairs = zip_longest(_proposed(name, num_plans, seed), _proposed("random", num_plans, seed))
    return any(own != at_random for own, at_random in pairs)


def _proposed(name: str, num_plans: int, seed: int) -> Iterator[Plan]:
    plans = [Plan(num_kv_splits=number) for number in range(1, num_plans + 1)]
    valley = random.Random(seed).randrange(num_plans)
    policy = Policy(name, budget=_budget(num_plans), seed=seed)
    ledger = Journal.in_memory().ledger("made up", plans, policy)
    for plan in ledger.pending():
        yield plan
        ledger.tell(Outcome(plan, 100.0 + abs(plans.index(plan) - valley)))


def first_acting(shares: Sequence[tuple[int, float]]) -> int | None:
    """The least size from which on a sampler is mostly one of its own, of ``(size, share)``."""
    first = None
    for size, share in sorted(shares, reverse=True):
        if share < 0.5:
            break
        first = size
    return first
