"""What a table says of one backend on one batch, and how two of those compare."""

__all__ = ["Ratio", "Timing"]

import math
from typing import NamedTuple

from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.table import CaseResult, Entry, Speedup

SURE = 1.01
"""By less than this two latencies are not told apart: nothing is published for less either."""
SURE_ON_CPU = 1.05


class Ratio(NamedTuple):
    """One latency over another; the interval is there where a table has one of either."""

    value: float
    low: float | None = None
    high: float | None = None

    def is_tie(self, on_gpu: bool) -> bool:
        """Whether the two cannot be told apart; the value is at least one."""
        within_gate = self.value <= (SURE if on_gpu else SURE_ON_CPU)
        return within_gate or (self.low is not None and self.low <= 1.0)


class Timing(NamedTuple):
    """A backend's time for one batch, in microseconds.

    Attributes:
        default_us: untuned; None where it could not be measured.
        served_us: with the table in use, whose plan may be the default. None where the table has
            nothing that is proven to run: an engine is then left with such a default.
        plan: what runs then.
        speedup: of the plan over the default, where there is one.
    """

    default_us: float | None
    served_us: float | None
    plan: Plan = UNTUNED
    speedup: Speedup | None = None

    @classmethod
    def of_entry(cls, entry: Entry) -> "Timing":
        """Of a whole entry: the mean over its KV lengths, by their weights."""
        plan, default_us = entry.plan, entry.default_us
        if plan:
            return cls(default_us, entry.latency_us, plan, entry.speedup)
        return cls(default_us, None if default_us is None else entry.latency_us, plan, None)

    @classmethod
    def of_case(cls, case: CaseResult, plan: Plan) -> "Timing":
        """Of one KV length of an entry, or of one ragged batch."""
        return cls(case.default_us, case.latency_us, plan, case.speedup)

    def over(self, other: "Timing") -> Ratio:
        """How many times as long this one takes as ``other``; both are served.

        The interval is of the noise in both tables' comparisons with their defaults. That of one
        table against another is as large at least: each was measured in processes of its own.
        """
        assert self.served_us is not None
        assert other.served_us is not None
        value = self.served_us / other.served_us
        mine, others = self._spread, other._spread
        if mine is None and others is None:
            return Ratio(value)
        factor = math.exp(math.hypot(mine or 0.0, others or 0.0))
        return Ratio(value, value / factor, value * factor)

    @property
    def _spread(self) -> float | None:
        """Half the width of the speed-up's interval, as a logarithm."""
        known = self.speedup
        if known is None or known.low <= 0:
            return None
        return math.log(known.high / known.low) / 2
