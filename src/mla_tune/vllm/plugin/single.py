"""The best single value of a knob, for steps that no lookup can answer.

A batch of several kinds of requests has no entry of its own. One value has to serve them all, and
it must not make any measured shape slower than vLLM's own value does, nor send a request to a
kernel that has not been tried with its like.
"""

__all__ = ["best_prefill_backend", "best_threshold", "named_prefill_backends"]

from collections.abc import Iterable, Sequence

from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.vllm.plugin.decode_lengths import DecodeLengths, threshold_meant


def best_threshold(entries: Sequence[Entry], vllm_own: int, *, may_rise: bool = True) -> int:
    """The threshold with the least weighted latency among those that leave no entry worse.

    Each entry was measured on the path (decode or prefill) of its plan, of the plans tied with
    it and of the default; a threshold that sends it down any other path is out. So is one above
    vLLM's own, unless entries have tried the decode path at every query length in between, with
    context and without (see `DecodeLengths`), and unless it ``may_rise``.
    """
    decoded = DecodeLengths.of(entries, vllm_own)
    extends = [_Extend.of(entry, vllm_own) for entry in entries]
    known = [extend for extend in extends if extend is not None]
    candidates = {
        threshold
        for threshold in {vllm_own}.union(*(extend.thresholds for extend in known))
        if threshold <= vllm_own or (may_rise and decoded.cover(vllm_own + 1, threshold))
    }
    costs = {threshold: sum(extend.cost(threshold) for extend in known) for threshold in candidates}
    best = min(costs.values())
    # vLLM's own wins a tie, then the value next to it.
    return min(
        (threshold for threshold in candidates if costs[threshold] <= best * (1 + 1e-9)),
        key=lambda threshold: (abs(threshold - vllm_own), threshold),
    )


class _Extend:
    """An entry of several query tokens, and what each of its two paths costs."""

    def __init__(self, query_len: int, thresholds: set[int], entry: Entry, vllm_own: int) -> None:
        self.thresholds = thresholds
        self._query_len = query_len
        default_us = float("inf") if entry.default_us is None else entry.default_us
        self._latency = {query_len <= vllm_own: entry.weight * default_us}
        for threshold in thresholds:
            # The plan's own latency comes last: where it takes the default's path, it is better.
            self._latency[query_len <= threshold] = entry.weight * entry.latency_us

    @classmethod
    def of(cls, entry: Entry, vllm_own: int) -> "_Extend | None":
        shape = Workload.parse(entry.shape).cases[0].shape
        if not shape.is_uniform or shape.max_query_len == 1:
            return None
        plans = [entry.plan, *entry.ties]
        set_by = [threshold_meant(plan, entry, vllm_own) for plan in plans]
        thresholds = {threshold for threshold in set_by if threshold is not None}
        if not thresholds:
            return None
        return cls(shape.max_query_len, thresholds, entry, vllm_own)

    def cost(self, threshold: int) -> float:
        return self._latency.get(self._query_len <= threshold, float("inf"))


def best_prefill_backend(entries: Iterable[Entry]) -> str | None:
    """The prefill backend that every entry with one was fastest with, or None.

    One entry that is faster with another leaves the choice to vLLM: what a mixed batch would
    gain on one shape it would lose on the other.
    """
    common: set[str | None] | None = None
    for entry in entries:
        accepted = {plan.text("prefill_backend") for plan in (entry.plan, *entry.ties)}
        if entry.default_plan and "prefill_backend" not in entry.default_plan:
            continue
        common = accepted if common is None else common & accepted
    named = sorted(name for name in common or () if name is not None)
    return named[0] if named and None not in (common or ()) else None


def named_prefill_backends(entries: Iterable[Entry]) -> set[str]:
    """Every prefill backend that a plan of ``entries`` names."""
    named = [entry.plan.text("prefill_backend") for entry in entries]
    return {name for name in named if name is not None}
