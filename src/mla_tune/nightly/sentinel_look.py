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
from mla_tune.nightly.reading import Reading
from mla_tune.nightly.shifts import LIMIT, SPREAD, scatter
from mla_tune.plan.failure import PlanFailure
from mla_tune.shapes import Workload
from mla_tune.table import Entry, Speedup
from mla_tune.tuning.look import look_at
from mla_tune.tuning.process_spread import MEASURED_SPREAD, over_processes
from mla_tune.tuning.second_look import second_look
from mla_tune.tuning.speedups import expected_us

ROUNDS = 10

SPREAD_ON_CPU = 0.02
"""Memory and cores move a median by up to 4 % from one run to the next."""

_NORMAL_95 = 1.96


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
) -> Look:
    """Race an entry's plan against the default, or time the default alone where it has none.

    Args:
        bench: opened for the table.
        workload: what the entry was measured with.
        entry: of the table.
        earlier: its readings, by time.
        card, at: what the reading says of where and when.
    """
    try:
        reading = _measured(bench, workload, entry, card, at)
    except (PlanFailure, WorkloadFailure) as failure:
        return Look(entry, None, failure.what)
    return Look(entry, reading, drift(entry, reading, earlier, on_gpu=bench.environment.is_cuda))


def drift(entry: Entry, reading: Reading, earlier: Sequence[Reading], *, on_gpu: bool) -> str:
    """How far a reading is from those before, if that is beyond their scatter; else nothing.

    A plan by its speed-up, which does not go with the card's clock, from the table on. The default
    alone by its latency, beside others of the same card.
    """
    before = _baseline(entry, earlier)
    if reading.speedup is not None:
        logs = [math.log(each.speedup.median) for each in before if each.speedup is not None]
        if entry.speedup is not None:
            logs.insert(0, math.log(entry.speedup.median))
        value = math.log(reading.speedup.median)
        own = math.log(reading.speedup.high / reading.speedup.low) / (2 * _NORMAL_95)
        what = "speed-up"
    else:
        logs = [math.log(each.latency_us) for each in before if each.card == reading.card]
        value, own, what = math.log(reading.latency_us), 0.0, "default's latency"
    if not logs:
        return ""
    change = value - float(np.median(logs))
    if abs(change) <= LIMIT * max(SPREAD if on_gpu else SPREAD_ON_CPU, own, scatter(logs)):
        return ""
    return f"{what} {math.exp(change) - 1:+.1%}"


def _baseline(entry: Entry, earlier: Sequence[Reading]) -> list[Reading]:
    """The readings of the entry as it stands: of its plan, since it was last tuned."""
    same = [reading for reading in earlier if reading.plan == entry.plan]
    tuned = [place for place, reading in enumerate(same) if reading.kind == "full"]
    return same[tuned[-1] :] if tuned else same


def _measured(bench: Bench, workload: Workload, entry: Entry, card: str, at: datetime) -> Reading:
    default = bench.plan_space(workload.shapes).default
    speedup: Speedup | None = None
    if entry.plan:
        samples = second_look(bench, workload, default, entry.plan, ROUNDS)
        seen = look_at(*samples, workload.shares()).together
        latency_us, default_us = seen.latency_us, seen.default_us
        speedup = over_processes([seen.speedup], MEASURED_SPREAD)
    else:
        bench.load(workload)
        alone = bench.race([default], ROUNDS, order_seed(str(workload), 0))[default]
        latency_us = default_us = expected_us(alone, workload.shares())
    environment = bench.environment
    return Reading(
        at=at,
        kind="sentinel",
        shape=entry.shape,
        plan=entry.plan,
        latency_us=latency_us,
        default_us=default_us,
        speedup=speedup,
        software=environment.software,
        card=card,
    )
