"""A plan beside the default once more: in another process after tuning, or a table another day."""

__all__ = ["remarks", "second_look"]

from collections.abc import Iterator

from mla_tune.measuring.bench import Bench
from mla_tune.measuring.orders import order_seed
from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.plan import Plan
from mla_tune.shapes import Workload


def second_look(
    bench: Bench,
    workload: Workload,
    default: Plan,
    plan: Plan,
    rounds: int,
    first_round: int = 0,
) -> tuple[Samples, Samples]:
    """Load ``workload``, check ``plan`` and race it.

    Args:
        bench: what measures.
        workload: what is loaded.
        default, plan: which are raced.
        rounds: how many.
        first_round: as of `order_seed`.

    Returns:
        The rounds of the default, and of the plan.

    Raises:
        WorkloadFailure: it does not load.
        PlanFailure: one of the two failed.
    """
    bench.load(workload)
    bench.verify(plan)
    taken = bench.race([default, plan], rounds, order_seed(str(workload), first_round))
    return taken[default], taken[plan]


def remarks(default: Samples, plan: Samples) -> Iterator[str]:
    """What befell the device meanwhile: the samples of one race share it."""
    both = default + plan
    if both.others is not None:
        yield str(both.others)
    if both.tainted:
        yield f"no clean samples: {both.tainted}"
