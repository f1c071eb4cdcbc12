"""The policies that are compared, and the size of space from which a sampler is one of its own."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from mla_tune.plan.plan import Plan
from mla_tune.tuning.screening import SCREENING_FACTOR
from mla_tune.tuning.study import Journal, Outcome, Policy

AS_A_RUN = "as a run does"
UNRANKED = "all, in the order of the space"
HALF = "half, at random"
SHARE = 0.5
"""Of the plans a sampler may try: at all of them it would be an enumeration with repeats."""

SAMPLERS = ("tpe", "gp")
SIZES = (10, 14, 18, 22, 26, 33, 50, 100)
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
            found[sampled(name)] = Policy(name, budget=budget, seed=seed)
    return found


def sampled(name: str) -> str:
    """What a sampler is called as a policy."""
    return f"half, by {name.upper()}"


def _budget(num_plans: int) -> int:
    return max(2, round(SHARE * num_plans))


def share_of_its_own(name: str, num_plans: int, seeds: int) -> float:
    """Share of seeds in which a sampler proposes a half that is not the one drawn at random.

    Optuna's samplers begin with ten trials at random; of those that are screened out TPE counts
    all, GP none. The latencies are made up: one valley, in steps of 1 %.
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
    best_us = math.inf
    for plan in ledger.pending():
        yield plan
        latency_us = 100.0 + abs(plans.index(plan) - valley)
        is_hopeless = latency_us > SCREENING_FACTOR * best_us
        ledger.tell(Outcome(plan, latency_us, "screened out" if is_hopeless else ""))
        best_us = min(best_us, latency_us)


def first_acting(shares: Sequence[tuple[int, float]]) -> int | None:
    """The least size from which on a sampler is mostly one of its own, of ``(size, share)``."""
    first = None
    for size, share in sorted(shares, reverse=True):
        if share < 0.5:
            break
        first = size
    return first
