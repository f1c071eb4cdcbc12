"""One entry's plan beside the default once more, and whether that is what it was."""

__all__ = ["ROUNDS", "Look", "drift", "look_again"]

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from mla_tune.errors import WorkloadFailure
from mla_tune.measuring.bench import Bench
from mla_tune.measuring.orders import order_seed
from mla_tune.nightly.reading import Reading, Rival
from mla_tune.nightly.shifts import LIMIT, SPREAD, scatter
from mla_tune.plan.failure import PlanFailure
from mla_tune.plan.plan import Plan
from mla_tune.shapes import Workload
from mla_tune.table import Entry, Speedup
from mla_tune.tuning.look import Comparison, look_at
from mla_tune.tuning.process_spread import MEASURED_SPREAD, over_processes, own_error
from mla_tune.tuning.second_look import second_look
from mla_tune.tuning.speedups import expected_us

ROUNDS = 10

SPREAD_ON_CPU = 0.02
"""Memory and cores move a median by up to 4 % from one run to the next."""

TIE = Speedup(median=1.0, low=1.0, high=1.0)


@dataclass(frozen=True)
class Look:
    """What a sentinel showed.

    Attributes:
        entry: the sentinel.
        reading: None where its plan failed.
        drift: in what it is not as it was; empty where it is.
    """

    entry: Entry
    reading: Reading | None
    drift: str


def look_again(
    bench: Bench,
    workload: Workload,
    entry: Entry,
    earlier: Sequence[Reading],
    card: str,
    at: datetime,
    rival: Plan | None = None,
) -> Look:
    """Race an entry's plan against the default; where it has none a rival, or time it alone.

    Args:
        bench: opened for the table.
        workload: what the entry was measured with.
        entry: of the table.
        earlier: its readings, by time.
        card, at: what the reading says of where and when.
        rival: of an entry that keeps the default, a plan to look at beside it.
    """
    try:
        reading = _measured(bench, workload, entry, card, at, rival)
    except (PlanFailure, WorkloadFailure) as failure:
        return Look(entry, None, failure.what)
    return Look(entry, reading, drift(entry, reading, earlier, on_gpu=bench.environment.is_cuda))


def drift(entry: Entry, reading: Reading, earlier: Sequence[Reading], *, on_gpu: bool) -> str:
    """How far a reading is from those before, if that is beyond their scatter; else nothing.

    A plan by its speed-up, which does not go with the card's clock, from the table on. The default
    by its latency, beside others of the same card, and by a rival that has become the faster one.
    """
    before, least = _baseline(entry, earlier), SPREAD if on_gpu else SPREAD_ON_CPU
    if reading.speedup is not None:
        known = [entry.speedup, *(each.speedup for each in before)]
        change = _of_speedups(reading.speedup, known, least)
        return _told("speed-up", change)
    logs = [math.log(each.latency_us) for each in before if each.card == reading.card]
    change = _beyond(math.log(reading.latency_us), 0.0, logs, least)
    return _told("default's latency", change) or _rival_drift(reading, before, least)


def _rival_drift(reading: Reading, before: Sequence[Reading], least: float) -> str:
    """Whether the rival is faster than the default now; the table says that it was a tie."""
    rival = reading.rival
    if rival is None or rival.speedup.low <= 1:
        return ""
    same = [each.rival for each in before if each.rival is not None]
    known = [TIE, *(each.speedup for each in same if each.plan == rival.plan)]
    change = _of_speedups(rival.speedup, known, least)
    return _told(f"speed-up of {rival.plan}", change) if change > 0 else ""


def _of_speedups(seen: Speedup, known: Sequence[Speedup | None], least: float) -> float:
    """As `_beyond`, of a speed-up and those before."""
    logs = [math.log(each.median) for each in known if each is not None]
    return _beyond(math.log(seen.median), own_error(seen), logs, least)


def _beyond(value: float, own: float, logs: Sequence[float], least: float) -> float:
    """How far a logarithm is from those before, if that is beyond their scatter; else 0.

    Args:
        value, own: the logarithm, and its own standard error.
        logs: those before, by time.
        least: the least that they scatter.
    """
    change = value - float(np.median(logs)) if logs else 0.0
    return change if abs(change) > LIMIT * max(least, own, scatter(logs)) else 0.0


def _told(what: str, change: float) -> str:
    return f"{what} {math.exp(change) - 1:+.1%}" if change else ""


def _baseline(entry: Entry, earlier: Sequence[Reading]) -> list[Reading]:
    """The readings of the entry as it stands: of its plan, since it was last tuned."""
    same = [reading for reading in earlier if reading.plan == entry.plan]
    tuned = [place for place, reading in enumerate(same) if reading.kind == "full"]
    return same[tuned[-1] :] if tuned else same


def _measured(
    bench: Bench, workload: Workload, entry: Entry, card: str, at: datetime, rival: Plan | None
) -> Reading:
    speedup: Speedup | None = None
    seen: Rival | None = None
    if entry.plan:
        latency_us, default_us, speedup = _beside_default(bench, workload, entry.plan)
    else:
        seen, default_us = _default(bench, workload, rival)
        latency_us = default_us
    environment = bench.environment
    return Reading(
        at=at,
        kind="sentinel",
        shape=entry.shape,
        plan=entry.plan,
        latency_us=latency_us,
        default_us=default_us,
        speedup=speedup,
        rival=seen,
        software=environment.software,
        card=card,
    )


def _default(bench: Bench, workload: Workload, rival: Plan | None) -> tuple[Rival | None, float]:
    """What was seen of the rival, if it runs, and the default's latency in microseconds."""
    space = bench.plan_space(workload.shapes)
    if rival is not None and rival in space.plans:
        try:
            _, default_us, speedup = _beside_default(bench, workload, rival)
            return Rival(plan=rival, speedup=speedup), default_us
        except PlanFailure as failure:
            if failure.plan != rival:
                raise
    bench.load(workload)
    alone = bench.race([space.default], ROUNDS, order_seed(str(workload), 0))[space.default]
    return None, expected_us(alone, workload.shares())


def _beside_default(bench: Bench, workload: Workload, plan: Plan) -> Comparison:
    """A plan beside the default, with its interval over processes."""
    default = bench.plan_space(workload.shapes).default
    samples = second_look(bench, workload, default, plan, ROUNDS)
    seen = look_at(*samples, workload.shares()).together
    return seen._replace(speedup=over_processes([seen.speedup], MEASURED_SPREAD))
