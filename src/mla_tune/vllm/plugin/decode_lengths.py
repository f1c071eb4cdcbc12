"""At which query lengths a table's entries have tried the decode path."""

__all__ = ["DecodeLengths", "threshold_meant"]

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mla_tune.plan.plan import Plan
from mla_tune.shapes import Workload
from mla_tune.table import Entry


@dataclass(frozen=True)
class DecodeLengths:
    """Query lengths, in tokens, of uniform entries with a plan that took the decode path.

    Measuring compares each plan's output with a reference, so at these lengths the decode path is
    known to be right. Beyond vLLM's own threshold vLLM never takes it: FLASHMLA with an fp8 cache
    is wrong there for requests without context, which is why the two kinds are kept apart.

    Attributes:
        with_context: lengths of entries whose requests had tokens in the cache before.
        without_context: lengths of entries whose queries were all there was.
    """

    with_context: frozenset[int]
    without_context: frozenset[int]

    @classmethod
    def of(cls, entries: Iterable[Entry], vllm_own: int) -> "DecodeLengths":
        """The lengths in ``entries``; ``vllm_own`` is the threshold that a default means."""
        found: dict[bool, set[int]] = {True: set(), False: set()}
        for entry in entries:
            meant = [threshold_meant(plan, entry, vllm_own) for plan in (entry.plan, *entry.ties)]
            highest = max((threshold for threshold in meant if threshold is not None), default=0)
            for case in Workload.parse(entry.shape).cases:
                query_len = case.shape.max_query_len
                if len(case.shape.groups) == 1 and query_len <= highest:
                    found[case.shape.max_kv_len > query_len].add(query_len)
        return cls(frozenset(found[True]), frozenset(found[False]))

    def cover(self, first: int, last: int) -> bool:
        """Whether every length from ``first`` to ``last`` was tried, with context and without."""
        both = self.with_context & self.without_context
        return last - first < len(both) and both.issuperset(range(first, last + 1))

    def speak_for(self, batch: Any) -> bool:
        """Whether each request of a uniform ``batch`` (CommonAttentionMetadata) was tried."""
        query_len = batch.max_query_len
        with_context = query_len in self.with_context
        without_context = query_len in self.without_context
        if with_context and without_context:
            return True
        if without_context:
            return bool(batch.max_seq_len <= query_len)
        lens = batch.seq_lens_cpu_upper_bound
        if not with_context or lens is None:
            return False
        # As a list: these are few, and each step through numpy costs more than reading them all.
        return bool(min(lens.tolist()[: batch.num_reqs]) > query_len)


def threshold_meant(plan: Plan, entry: Entry, vllm_own: int) -> int | None:
    """The threshold a plan means; None where the knob made no difference to it."""
    meant = plan or entry.default_plan
    return meant.number("reorder_batch_threshold") if meant else vllm_own
