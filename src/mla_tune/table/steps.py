"""What an eager table says of a step, by its requests and their mean and longest KV length.

An engine and `Table.lookup_shape` ask here, so that both say the same of a batch.
"""

__all__ = ["EagerSteps", "StepAnswer"]

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, TypeVar

from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes import BatchShape, RequestGroup
from mla_tune.shapes.buckets import bucket_end, bucket_start
from mla_tune.shapes.lengths import ALIKE, Lengths
from mla_tune.table.entry import Entry
from mla_tune.table.ragged import OUTSIDE
from mla_tune.table.waves import Answer

# Batch size x query length x eighth of an octave of KV length: far more than an engine serves.
MAX_CACHED = 65536


@dataclass(frozen=True)
class StepAnswer:
    """What a table says of one kind of step: of KV lengths in the same eighths of octaves.

    Attributes:
        shape: the kind of step, as a batch spec; without a KV length where that is not one.
        outcome: ``hit``, ``miss``, or ``skewed``, a miss because the lengths differ.
        plan: the plan to use; empty where the default is best, and on a miss.
        entry: what was measured, if that answers.
        gain: latency of the default over the plan's, if the model answers, as it predicts it.
        most_skew: how many times the mean the longest request may be for the answer to hold.
    """

    shape: str
    outcome: str
    plan: Plan = UNTUNED
    entry: Entry | None = None
    gain: float | None = None
    most_skew: float = math.inf
    missed: Callable[[], str] | None = field(default=None, repr=False, compare=False)

    @property
    def reason(self) -> str:
        """On a miss, why nothing answers."""
        return self.missed() if self.missed is not None else ""


class _Tabled(Protocol):
    """A table, as far as steps are looked up in it: `Table`, which itself looks up here."""

    @property
    def evens_out(self) -> bool: ...
    def entry_of(self, shape: BatchShape) -> Entry | None: ...
    def answer(self, batch: int, kv_lens: tuple[int, ...], query_len: int = 1) -> Answer | None: ...
    def answer_ragged(
        self, batch: int, means: tuple[int, ...], longest: tuple[int, ...]
    ) -> Answer | None: ...
    def why_none(self, shape: BatchShape) -> str: ...


class _Kept(Protocol):
    @property
    def most_skew(self) -> float: ...


KeptT = TypeVar("KeptT", bound=_Kept)


class EagerSteps(Generic[KeptT]):
    """The answers of one table to one step after another: one dict access once a kind is known.

    Args:
        table: the table; None answers nothing.
        kept: what to keep of an answer for so many requests, and to say from then on.
    """

    def __init__(self, table: _Tabled | None, kept: Callable[[int, StepAnswer], KeptT]) -> None:
        self._table = table
        self._kept = kept
        self._uniform: dict[tuple[int, int, int], KeptT] = {}
        self._ragged: dict[tuple[int, int, int, int], KeptT] = {}

    @property
    def known(self) -> int:
        """How many kinds of steps have been looked up."""
        return len(self._uniform) + len(self._ragged)

    def forget(self) -> None:
        """Look everything up again that has been looked up so far."""
        self._uniform.clear()
        self._ragged.clear()

    def step(self, batch: int, query_len: int, longest: int, lengths: Lengths | None) -> KeptT:
        """What to use for a step whose longest request has ``longest`` tokens.

        ``lengths`` are those within the batch, of this step or one not long before; None where
        vLLM does not tell them.
        """
        if lengths is None:
            return self.uniform(batch, query_len, longest)
        if not lengths.is_skewed:
            found = self.uniform(batch, query_len, longest)
            if lengths.skew <= found.most_skew:
                return found
        return self.ragged(batch, query_len, lengths.mean, longest)

    def uniform(self, batch: int, query_len: int, kv_len: int) -> KeptT:
        """What to use for a uniform batch whose longest request has ``kv_len`` tokens."""
        key = (batch, query_len, bucket_start(kv_len))
        found = self._uniform.get(key)
        if found is None:
            if len(self._uniform) >= MAX_CACHED:
                self._uniform.clear()
            found = self._uniform[key] = self._kept(batch, self._look_up(*key))
        return found

    def ragged(self, batch: int, query_len: int, mean: int, longest: int) -> KeptT:
        """What to use for a batch whose longest request is above what a uniform one speaks for.

        No entry does, but the table's model may: see `mla_tune.table.ragged`.
        """
        key = (batch, query_len, bucket_start(mean), bucket_start(longest))
        found = self._ragged.get(key)
        if found is None:
            if len(self._ragged) >= MAX_CACHED:
                self._ragged.clear()
            found = self._ragged[key] = self._kept(batch, self._look_up_ragged(*key))
        return found

    def _look_up(self, batch: int, query_len: int, start: int) -> StepAnswer:
        asked = BatchShape((RequestGroup(query_len, max(start, query_len), batch),))
        shape, table = str(asked), self._table
        if table is None:
            return StepAnswer(shape, "miss", missed=lambda: "no table for eager steps")
        entry = table.entry_of(asked)
        if entry is not None:
            proven = entry.speedup.low if entry.speedup is not None else math.inf
            most_skew = _most_skew(table, entry.plan, proven)
            return StepAnswer(shape, "hit", entry.plan, entry, most_skew=most_skew)
        answer = table.answer(batch, (asked.max_kv_len, bucket_end(start)), query_len)
        if answer is None:
            return StepAnswer(shape, "miss", missed=partial(table.why_none, asked))
        if answer.outcome == "miss":
            return StepAnswer(shape, "miss", missed=lambda: answer.unproven)
        proven = answer.gain / (1 + answer.error) if answer.gain is not None else math.inf
        most_skew = _most_skew(table, answer.plan, proven)
        return StepAnswer(shape, "hit", answer.plan, gain=answer.gain, most_skew=most_skew)

    def _look_up_ragged(self, batch: int, query_len: int, mean: int, longest: int) -> StepAnswer:
        shape, answer = f"{batch}q{query_len}", None
        if self._table is not None and query_len == 1:
            ends = [(start, bucket_end(start)) for start in (mean, longest)]
            answer = self._table.answer_ragged(batch, *ends)
        if answer is None:
            return StepAnswer(shape, "skewed", missed=lambda: "lengths differ within the batch")
        if answer.outcome == "miss":
            why = f"lengths differ within the batch: {answer.unproven}"
            return StepAnswer(shape, "skewed", missed=lambda: why)
        return StepAnswer(shape, "hit", answer.plan, gain=answer.gain)


def _most_skew(table: _Tabled, plan: Plan, gain: float) -> float:
    """How skewed a batch may be for a plan that is proven to gain so much on a uniform one.

    Of all batches with that longest request the uniform one is the plan's slowest. The default, in
    the same splits at all of them, is faster by the longest length over the mean at most, and by
    `OUTSIDE` for what is not even about the waves of the uniform one. Where a scheduler evens out
    the parts, that is all there is to gain, and it goes with the first difference.
    """
    if not plan:
        return math.inf
    return ALIKE if "num_kv_splits" in plan and table.evens_out else gain / (1 + OUTSIDE)
