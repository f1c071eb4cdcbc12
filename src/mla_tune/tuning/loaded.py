"""A workload whose inputs are on the bench: what may be asked about its plans."""

__all__ = ["LoadedWorkload"]

from collections.abc import Sequence
from dataclasses import dataclass

from mla_tune.measuring.bench import Bench
from mla_tune.measuring.orders import order_seed
from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.failure import PlanFailure
from mla_tune.plan.plan import Plan
from mla_tune.shapes import Workload
from mla_tune.tuning.quarantine import Quarantine, Ward
from mla_tune.tuning.speedups import expected_us


@dataclass(frozen=True)
class LoadedWorkload:
    """One workload on a bench, and its plans in quarantine.

    Args:
        workload: what is loaded.
        default: its default plan.
        bench: what measures.
        quarantine, ward: plans not to be tried, and what they are filed under.
    """

    workload: Workload
    default: Plan
    bench: Bench
    quarantine: Quarantine
    ward: Ward

    def race(
        self,
        plans: Sequence[Plan],
        rounds: int,
        first_round: int = 0,
        cases: Sequence[int] | None = None,
    ) -> dict[Plan, Samples]:
        """Time plans side by side, after ``first_round`` rounds before. Raises `PlanFailure`.

        Args:
            plans, rounds, first_round: which, how many, and how many before.
            cases: the numbers of those to sample; None for all.
        """
        seed = order_seed(str(self.workload), first_round)
        if cases is None:
            return self.bench.race(plans, rounds, seed)
        return self.bench.race(plans, rounds, seed, tuple(cases))

    def verify(self, plan: Plan) -> None:
        """Check a plan's output. Raises `PlanFailure`."""
        self.bench.verify(plan)

    def expected_us(self, samples: Samples) -> float:
        """Expected latency in microseconds over the workload's cases."""
        return expected_us(samples, self.shares)

    @property
    def shares(self) -> tuple[float, ...]:
        return tuple(self.workload.shares())

    @property
    def served(self) -> tuple[int, ...]:
        """The numbers of the cases that a plan is chosen for."""
        return tuple(n for n, case in enumerate(self.workload.cases) if not case.is_guard)

    @property
    def guards(self) -> tuple[int, ...]:
        """The numbers of the guards."""
        return tuple(n for n, case in enumerate(self.workload.cases) if case.is_guard)

    def quarantined(self, plan: Plan) -> str | None:
        """Why ``plan`` is not to be tried, or None."""
        return self.quarantine.reason(self.ward, self.workload.measured_key, plan)

    def filed(self, plan: Plan, failure: PlanFailure) -> str:
        """Put ``plan`` into quarantine where its failure calls for it.

        Returns:
            The failure in one line.
        """
        reason = f"{failure.kind}: {failure.what}"
        if failure.kind.is_quarantined:
            self.quarantine.add(self.ward, self.workload.measured_key, plan, reason)
        return reason
