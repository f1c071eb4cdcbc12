"""Which launches the plans of a table's workloads may have."""

__all__ = [
    "ALL_LAUNCHES",
    "LAUNCHES",
    "OWN_LAUNCH",
    "SPLITS",
    "Launches",
    "has_own_launch",
    "launches_in",
    "splits_of",
]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mla_tune.plan.launch import launch_of
from mla_tune.plan.plan import Plan

LAUNCHES = ("none", "few", "all")
"""How many are tried: vLLM's own, it and the best few of a search, or all that there are."""


def launches_in(mode: str, asked: str | None) -> str:
    """Which of `LAUNCHES` is tried for a table of ``mode``; None asks for what is best there.

    When an engine starts, it compiles each pair of a launch and a split count that its tables name.
    A graph table names one a captured size; an eager one may name hundreds, and has only the
    backend's own launch unless it is asked for others.
    """
    return asked or ("few" if mode == "graph" else "none")


SPLITS = "num_kv_splits"

WITHIN = 4
"""How far from where it is looked for the best split count of a launch may be: larger blocks of
heads take up to so many times the splits, and waves of thread blocks move it by less."""


@dataclass(frozen=True)
class Launches:
    """The launches that are tried beside the backend's own, and at which split counts.

    Attributes:
        chosen: as `launch_of` has them; None: whatever the plan space holds.
        best_splits: the best split count of the backend's own launch, by rows of queries, where it
            is known. The chosen launches are tried at counts near the one that makes as many
            thread blocks of a batch as the nearest of these; without any, at all counts.
    """

    chosen: tuple[Plan, ...] | None
    best_splits: Mapping[int, int] = field(default_factory=dict)

    def among(self, plans: Sequence[Plan], rows: int) -> tuple[Plan, ...]:
        """Those of ``plans``, the default first, that are tried for a batch of ``rows``."""
        chosen = self.chosen
        if chosen is None:
            return tuple(plans)
        near = self._near(plans, rows)
        return tuple(
            plan
            for plan in plans
            if has_own_launch(plan, plans[0])
            or (launch_of(plan) in chosen and splits_of(plan) in near)
        )

    def _near(self, plans: Sequence[Plan], rows: int) -> set[int]:
        counts = set(map(splits_of, plans))
        if not self.best_splits:
            return counts
        nearest = min(self.best_splits, key=lambda known: abs(math.log(known / rows)))
        wanted = max(1.0, self.best_splits[nearest] * nearest / rows)
        wanted = min(wanted, max(counts))
        return {count for count in counts if wanted <= WITHIN * count <= WITHIN**2 * wanted}


ALL_LAUNCHES = Launches(None)
OWN_LAUNCH = Launches(())


def has_own_launch(plan: Plan, default: Plan) -> bool:
    """Whether the kernel is launched as the backend does by itself.

    Args:
        plan: which; constants that it leaves open are the backend's own.
        default: the plan for the backend untuned, which may name its own constants.
    """
    launch = launch_of(plan)
    return not launch or launch == launch_of(default)


def splits_of(plan: Plan) -> int:
    """The split count; 1 for a kernel that has none to be told."""
    return max(1, plan.number(SPLITS) or 1)
