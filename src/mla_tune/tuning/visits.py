"""Backends beside each other: one process measures all of them in turn, again and again.

Sessions of two backends are not open at a time, as their layers share what is global in vLLM. So a
*visit* builds a backend's session, and times every workload under the plan that would act there.
The unit of the comparison is the visit: what moves a whole visit, such as the clock, is the noise.
"""

__all__ = ["Contender", "compared"]

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from mla_tune.errors import MlaTuneError
from mla_tune.measuring.bench import Bench
from mla_tune.measuring.orders import order_seed
from mla_tune.plan.plan import Plan
from mla_tune.session import Setup
from mla_tune.shapes import Workload
from mla_tune.table import Speedup
from mla_tune.tuning.comparison import MOST_VISITS, Comparison
from mla_tune.tuning.process_spread import MEASURED_SPREAD, over_processes
from mla_tune.tuning.speedups import expected_us

ROUNDS = 8
"""Of each case at a visit."""

FEWEST_VISITS = 4

SAME_ROUND = 1.1
"""How much longer than those before a round of visits may take."""


@dataclass(frozen=True)
class Contender:
    """A backend as an engine would run it.

    Attributes:
        setup: what its session is built for.
        plans: what is timed, the same batches for all contenders, each with the plan of its table;
            an empty plan is the backend's default.
    """

    setup: Setup
    plans: tuple[tuple[Workload, Plan], ...]

    @property
    def name(self) -> str:
        return self.setup.backend


def compared(
    bench: Bench,
    contenders: Sequence[Contender],
    gate: float,
    left_s: Callable[[], float],
    left_out: Callable[[str], None],
) -> list[Comparison]:
    """Compare all others with the first of ``contenders``, in their order.

    Args:
        bench: what measures.
        contenders: the first is what the others have to beat.
        gate: the speed-up that is asked for: visits end once all intervals are off it.
        left_s: seconds that are left; no round of visits is begun that would not fit.
        left_out: told of each contender that cannot be measured, and why.

    Returns:
        Of those that could be measured.

    Raises:
        MlaTuneError: the first contender cannot be measured.
    """
    first, racing = contenders[0], list(contenders[1:])
    taken: dict[Contender, list[float]] = {contender: [] for contender in contenders}
    longest_s = 0.0
    for number in range(MOST_VISITS):
        before_s = left_s()
        if not racing or before_s <= longest_s * SAME_ROUND:
            break
        for failed, failure in _visit_all(bench, first, racing, number, taken):
            left_out(f"{failed.name} is left out: {failure.what}")
            racing.remove(failed)
            del taken[failed]
        longest_s = max(longest_s, before_s - left_s())
        found = {each: _comparison(each, taken[first], taken[each]) for each in racing}
        if number == 0:
            racing = [each for each in racing if found[each].is_near]
        elif number % 2 and all(comparison.is_settled(gate) for comparison in found.values()):
            break
    beside = taken.pop(first)
    return [_comparison(each, beside, own) for each, own in taken.items() if own]


def _visit_all(
    bench: Bench,
    first: Contender,
    racing: Sequence[Contender],
    number: int,
    taken: Mapping[Contender, list[float]],
) -> list[tuple[Contender, MlaTuneError]]:
    """Visit each, to and fro, so that a clock that drifts is in favour of nobody; what failed."""
    failed = []
    for contender in [first, *racing][:: -1 if number % 2 else 1]:
        try:
            taken[contender].append(_visited(bench, contender, number))
        except MlaTuneError as failure:
            if contender is first:
                raise
            failed.append((contender, failure))
    return failed


def _visited(bench: Bench, contender: Contender, number: int) -> float:
    """The expected latency of a step in microseconds, in a session built anew."""
    bench.open(contender.setup)
    latencies = []
    for workload, plan in contender.plans:
        bench.load(workload)
        asked = plan or bench.plan_space(workload.shapes).default
        if number == 0:
            bench.verify(asked)
        samples = bench.race([asked], ROUNDS, order_seed(str(workload), number * ROUNDS))[asked]
        latencies.append(expected_us(samples, workload.shares()))
    return float(np.mean(latencies))


def _comparison(
    contender: Contender, first_us: Sequence[float], own_us: Sequence[float]
) -> Comparison:
    count = len(own_us)
    theirs, own = np.asarray(first_us[:count]), np.asarray(own_us)
    speedup = _over_visits(np.log(theirs / own)) if count >= FEWEST_VISITS else None
    medians = float(np.median(theirs)), float(np.median(own))
    return Comparison(contender.name, medians, count, speedup)


def _over_visits(log_ratios: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Speedup:
    """The mean with its interval over processes, of which this is one."""
    count = len(log_ratios)
    middle = float(np.mean(log_ratios))
    half = float(stats.t.ppf(0.975, count - 1) * np.std(log_ratios, ddof=1) / math.sqrt(count))
    median, low, high = np.exp([middle, middle - half, middle + half]).tolist()
    return over_processes([Speedup(median=median, low=low, high=high)], MEASURED_SPREAD)
