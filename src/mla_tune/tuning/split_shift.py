"""Where the best split count of a launch lies, by that of the backend's own launch."""

__all__ = ["Near"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mla_tune.plan.cut import BLOCK_H, BLOCK_N
from mla_tune.plan.launch import launch_of, without_launch
from mla_tune.plan.plan import Plan
from mla_tune.tuning.launches import SPLITS, splits_of


@dataclass(frozen=True)
class Near:
    """Plans of other launches near the best split count of the backend's own, in one workload.

    The best count comes with the number of thread blocks, which among the constants of a launch
    depends on ``block_h`` alone; the others make each block faster or slower. So it is looked for
    with one launch, a pioneer, for each ``block_h``.

    Args:
        plans: of the workload.
        anchor: the best of them with the backend's own launch.
        num_q_heads: of the model, on one GPU.
    """

    plans: Sequence[Plan]
    anchor: Plan
    num_q_heads: int

    def plan(self, launch: Plan, shift: float) -> Plan | None:
        """The plan with ``launch`` at nearly ``shift`` times the splits; None: there is none."""
        wanted = shift * splits_of(self.anchor)
        return min(
            self._with(launch),
            key=lambda plan: abs(math.log(splits_of(plan) / wanted)),
            default=None,
        )

    def pioneers(self, launches: Sequence[Plan]) -> list[Plan]:
        """The plans of one launch for each ``block_h`` but the own one, at counts near the best.

        From half the splits to as many as make the same number of thread blocks: so far the best
        count may rise, and larger blocks have fewer of them on a multiprocessor at once.
        """
        found: list[Plan] = []
        for block_h, same in self._classes(launches).items():
            if self._blocks(block_h) == self._blocks(self._own_block_h):
                continue
            pioneer = next((one for one in same if one.get("block_n") == BLOCK_N), same[0])
            least, most = 0.5, self._blocks(self._own_block_h) / self._blocks(block_h)
            found += [plan for plan in self._with(pioneer) if least <= self.shift_of(plan) <= most]
        return found

    def shifts(self, launches: Sequence[Plan], ratios: Mapping[Plan, float]) -> dict[Plan, float]:
        """How many times the splits of the own launch each launch is best at.

        Args:
            launches: all.
            ratios: the times of the `pioneers`.
        """
        found: dict[Plan, float] = {}
        for block_h, same in self._classes(launches).items():
            tried = [plan for plan in ratios if self._block_h(plan) == block_h]
            best = min(tried, key=lambda plan: ratios[plan], default=self.anchor)
            found |= dict.fromkeys(same, self.shift_of(best))
        return found

    def shift_of(self, plan: Plan) -> float:
        """How many times the splits of the own launch ``plan`` has."""
        return splits_of(plan) / splits_of(self.anchor)

    def _with(self, launch: Plan) -> list[Plan]:
        """The plans that differ from the anchor in launch and splits alone."""
        rest = without_launch(self.anchor).without(SPLITS)
        return [
            plan
            for plan in self.plans
            if launch_of(plan) == launch and without_launch(plan).without(SPLITS) == rest
        ]

    def _classes(self, launches: Sequence[Plan]) -> dict[int, list[Plan]]:
        classes: dict[int, list[Plan]] = {}
        for launch in launches:
            classes.setdefault(self._block_h(launch), []).append(launch)
        return classes

    def _block_h(self, plan: Plan) -> int:
        return plan.number("block_h") or self._own_block_h

    @property
    def _own_block_h(self) -> int:
        return self.plans[0].number("block_h") or BLOCK_H

    def _blocks(self, block_h: int) -> int:
        return -(-self.num_q_heads // block_h)
