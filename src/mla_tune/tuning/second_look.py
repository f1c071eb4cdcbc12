"""A plan beside the default once more: in another process after tuning, or a table another day."""

__all__ = ["remarks", "second_look", "tells_enough"]

from collections.abc import Callable, Iterator, Sequence

from mla_tune.measuring.bench import Bench
from mla_tune.measuring.orders import order_seed
from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.plan import Plan
from mla_tune.shapes import Workload
from mla_tune.table import Speedup
from mla_tune.tuning.decide import MIN_ROUNDS, NARROW, is_far_from_loss
from mla_tune.tuning.look import look_at
from mla_tune.tuning.process_spread import MEASURED_SPREAD, own_error

CLEAR_GAIN = 1.1
"""A gain of which one percent more or less changes nothing."""


def second_look(
    bench: Bench,
    workload: Workload,
    default: Plan,
    plan: Plan,
    rounds: int,
    first_round: int = 0,
    is_enough: Callable[[Samples, Samples], bool] | None = None,
) -> tuple[Samples, Samples]:
    """Load ``workload``, check ``plan`` and race it.

    Args:
        bench: what measures.
        workload: what is loaded.
        default, plan: which are raced.
        rounds: how many.
        first_round: as of `order_seed`.
        is_enough: asked after every `MIN_ROUNDS` whether the rounds of default and plan are enough;
            None: all are raced at once.

    Returns:
        The rounds of the default, and of the plan.

    Raises:
        WorkloadFailure: it does not load.
        PlanFailure: one of the two failed.
    """
    bench.load(workload)
    bench.verify(plan)
    step = rounds if is_enough is None else MIN_ROUNDS
    theirs, own = Samples(()), Samples(())
    for start in range(0, rounds, step):
        count, seed = min(step, rounds - start), order_seed(str(workload), first_round + start)
        taken = bench.race([default, plan], count, seed)
        theirs, own = theirs + taken[default], own + taken[plan]
        if is_enough is not None and is_enough(theirs, own):
            break
    return theirs, own


def tells_enough(default: Samples, plan: Samples, shares: Sequence[float]) -> bool:
    """Whether more rounds in this process would say little more of the plan.

    Either its gain is clear, and known to a percent; or processes differ by more than rounds do,
    which no number of rounds helps. The same of each case, where being far from a loss is enough.
    """
    look = look_at(default, plan, shares)
    together = look.together.speedup
    is_clear = together.low > CLEAR_GAIN and together.half_width <= 2 * NARROW * together.median
    return (is_clear or _is_known(together)) and all(
        is_far_from_loss(case.speedup) or _is_known(case.speedup)
        for case in filter(None, look.cases)
    )


def _is_known(speedup: Speedup) -> bool:
    return own_error(speedup) <= MEASURED_SPREAD / 2


def remarks(default: Samples, plan: Samples) -> Iterator[str]:
    """What befell the device meanwhile: the samples of one race share it."""
    both = default + plan
    if both.others is not None:
        yield str(both.others)
    if both.tainted:
        yield f"no clean samples: {both.tainted}"
