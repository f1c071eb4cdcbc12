"""A few batch shapes that all devices of a run measure, to find a card that is not like the others.

Each shape is tuned on one card, and a speed-up is a ratio of two times on that card. The times in
the table, and how near a plan is to the gate, still depend on it: a card that is too hot, or whose
memory has lost a part, is named.
"""

__all__ = ["DISAGREE", "Sighting", "disagreements", "sentinels_of", "sighting"]

import math
import statistics
from collections.abc import Mapping, Sequence

from mla_tune.errors import UnavailableError, WorkloadFailure
from mla_tune.measuring.bench import Bench
from mla_tune.measuring.orders import order_seed
from mla_tune.plan.failure import PlanFailure
from mla_tune.shapes import Workload

DISAGREE = 1.03
"""How many times as long as the others a card may take, or they as long as it. The same shapes on
two H100 of one kind differed by 0.6 % (`process_spread`); a clock that is held down takes more."""

MOST = 3
ROUNDS = 24

Sighting = Mapping[str, float]
"""Microseconds that the default took on one card, by batch shape."""


def sentinels_of(workloads: Sequence[Workload], cost: Mapping[Workload, float]) -> list[Workload]:
    """Those that all devices measure: of the smallest, a middle and the largest size."""
    ordered = sorted(workloads, key=lambda workload: cost[workload])
    places = {0, len(ordered) // 2, len(ordered) - 1}
    return [ordered[place] for place in sorted(places)][:MOST]


def sighting(bench: Bench, workloads: Sequence[Workload]) -> Sighting:
    """Measure the default of ``workloads``, whose session is open; those that fail are left out.

    The listed cases tell cards apart. With guards and ragged batches 40 captured sizes began some
    seconds later on each card (the default of 336 requests to 64k takes 64 ms for a round of all).
    """
    seen: dict[str, float] = {}
    for whole in workloads:
        workload = Workload(whole.listed)
        try:
            default = bench.plan_space(workload.shapes).default
            bench.load(workload)
            seed = order_seed(str(workload))
            rounds = bench.race([default], ROUNDS, seed)[default].rounds
        except (PlanFailure, WorkloadFailure, UnavailableError):
            continue  # tuning it will say so
        for shape, taken_us in zip(workload.shapes, zip(*rounds, strict=True), strict=True):
            seen[str(shape)] = statistics.median(taken_us)
    return seen


def disagreements(sightings: Mapping[str, Sighting]) -> dict[str, float]:
    """The cards that are not like the others, each with how many times as long it takes.

    A card is compared with the middle one, and of two with the faster, over the shapes that all
    could measure.

    Args:
        sightings: of each card.
    """
    shared = set.intersection(*(set(seen) for seen in sightings.values())) if sightings else set()
    if len(sightings) < 2 or not shared:
        return {}
    usual = {
        shape: statistics.median_low([seen[shape] for seen in sightings.values()])
        for shape in shared
    }
    ratios = {
        card: math.exp(statistics.fmean(math.log(seen[shape] / usual[shape]) for shape in shared))
        for card, seen in sightings.items()
    }
    return {card: ratio for card, ratio in ratios.items() if not 1 / DISAGREE <= ratio <= DISAGREE}
