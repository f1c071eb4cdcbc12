"""A bench that begins nothing more once its time is over."""

__all__ = ["BoundedBench", "NightOver"]

from collections.abc import Callable, Sequence

from mla_tune.measuring.bench import Bench
from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.compilation import Compilation
from mla_tune.plan.plan import Plan
from mla_tune.plan.space import PlanSpace
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, Workload


class NightOver(Exception):
    """The budget is spent. What was decided is written, as after Ctrl-C."""


class BoundedBench:
    """A bench that begins no workload once its time is over.

    Args:
        bench: what measures.
        is_over: asked before each workload.
    """

    def __init__(self, bench: Bench, is_over: Callable[[], bool]) -> None:
        self.environment = bench.environment
        self._bench = bench
        self._is_over = is_over

    def open(self, setup: Setup) -> None:
        """As the bench's own."""
        self._bench.open(setup)

    def plan_space(self, shapes: Sequence[BatchShape]) -> PlanSpace:
        """As the bench's own."""
        return self._bench.plan_space(shapes)

    def load(self, workload: Workload) -> None:
        """As the bench's own.

        Raises:
            NightOver: there is no time left for it.
        """
        if self._is_over():
            raise NightOver
        self._bench.load(workload)

    def compile(self, plans: Sequence[Plan]) -> Compilation:
        """As the bench's own."""
        return self._bench.compile(plans)

    def race(
        self,
        plans: Sequence[Plan],
        rounds: int,
        seed: int,
        cases: Sequence[int] | None = None,
    ) -> dict[Plan, Samples]:
        """As the bench's own."""
        return self._bench.race(plans, rounds, seed, cases)

    def verify(self, plan: Plan) -> None:
        """As the bench's own."""
        self._bench.verify(plan)

    def renew(self) -> bool:
        """As the bench's own."""
        return self._bench.renew()

    def close(self) -> None:
        """As the bench's own."""
        self._bench.close()
