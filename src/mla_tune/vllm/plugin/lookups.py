"""Lookups fast enough for every step: one dict access once a kind of step has been seen."""

__all__ = ["ENDS_EARLY", "UNIFORM_ALONE", "Lookups"]

import math
from collections.abc import Callable, Collection, Iterable, Iterator

from mla_tune.plan.plan import Plan
from mla_tune.registry import BACKENDS
from mla_tune.shapes import BatchShape, RequestGroup, Workload
from mla_tune.shapes.buckets import bucket_end, bucket_start
from mla_tune.shapes.lengths import ALIKE, Lengths
from mla_tune.table import Entry, Table
from mla_tune.table.lookup import unproven
from mla_tune.table.ragged import OUTSIDE
from mla_tune.table.waves import Answer
from mla_tune.vllm.plugin.choice import Choice

# Batch size x query length x eighth of an octave of KV length: far more than an engine serves.
MAX_CACHED = 65536

ENDS_EARLY = "measured to shorter KV lengths than this engine serves"
UNIFORM_ALONE = "measured on uniform batches alone"

Usable = Callable[[Plan], bool]


class Lookups:
    """The graph table and the eager table of one engine.

    Args:
        graph: plans per captured batch, or None.
        eager: plans per real lengths, or None.
        graph_usable: whether a plan of the graph table may be used in this engine; None: every
            one may.
        applicable: whether all knobs of a plan can be set in this engine; None: always.
        reach: the longest KV length that so many requests can all have in this engine; None: not
            known, and every entry is long enough.
        unguarded: use entries of the graph table beyond what they were measured for, which the
            operator has asked for.
    """

    def __init__(
        self,
        graph: Table | None,
        eager: Table | None,
        *,
        graph_usable: Usable | None = None,
        applicable: Usable | None = None,
        reach: Callable[[int], int] | None = None,
        unguarded: bool = False,
    ) -> None:
        self.eager_table = eager
        self._evens_out = eager is not None and BACKENDS[eager.header.backend].cut == "scheduled"
        self._graph_usable = graph_usable
        self._applicable = applicable
        self._reach = reach
        self._unguarded = unguarded
        self._captured = _by_batch(graph.entries if graph else ())
        self._cache: dict[tuple[int, int, int], Choice] = {}
        self._ragged: dict[tuple[int, int, int, int], Choice] = {}
        self._modelled_rows: dict[int, int] = {}
        if eager is not None and eager.between is not None:
            self._modelled_rows = _modelled_rows(eager)
        self._most_row_splits = max(
            (rows * splits for splits, rows in self._modelled_rows.items()), default=0
        )

    def forget(self) -> None:
        """Look everything up again that has been looked up so far."""
        self._cache.clear()
        self._ragged.clear()

    @property
    def tabled(self) -> Collection[tuple[int, int]]:
        """(requests, query length) of the graph table's entries."""
        return self._captured.keys()

    def captured(self, batch: int, query_len: int) -> Choice:
        """What to freeze into the graph of ``batch`` requests of ``query_len`` tokens.

        The KV lengths are the table's assumption about the deployment; only batch and query
        length are looked up, and no other size's entry answers.
        """
        shape = f"{batch}q{query_len}"
        entry = self._captured.get((batch, query_len))
        if entry is None:
            return Choice(shape, "miss", reason="no entry of this batch and query length")
        if entry.plan and self._graph_usable is not None and not self._graph_usable(entry.plan):
            reason = f"{entry.shape}: {entry.plan} is not proven for this engine's max_model_len"
            return Choice(shape, "miss", reason=reason)
        if entry.plan and not self._unguarded and (lack := self._lack(entry, batch)):
            return Choice(shape, "miss", reason=lack)
        return self._hit(shape, entry.plan, _longest_kv(entry))

    def _lack(self, entry: Entry, batch: int) -> str | None:
        """Which batches of this engine nobody has compared the plan with the default on.

        Entries of earlier versions say nothing of ragged batches, and were never measured on any.
        """
        if batch > 1 and not entry.holds_ragged:
            return UNIFORM_ALONE
        holds_to = entry.holds_to or _longest_kv(entry)
        if self._reach is not None and holds_to < self._reach(batch):
            return ENDS_EARLY
        return None

    def step(self, batch: int, query_len: int, longest: int, lengths: Lengths | None) -> Choice:
        """What to use for an eager step whose longest request has ``longest`` tokens.

        ``lengths`` are those within the batch, of this step or one not long before; None where
        vLLM does not tell them.
        """
        if lengths is None:
            return self.eager(batch, query_len, longest)
        if not lengths.is_skewed:
            choice = self.eager(batch, query_len, longest)
            if lengths.skew <= choice.most_skew:
                return choice
        return self.ragged(batch, query_len, lengths.mean, longest)

    def eager(self, batch: int, query_len: int, kv_len: int) -> Choice:
        """What to use for a uniform batch whose longest request has ``kv_len`` tokens."""
        key = (batch, query_len, bucket_start(kv_len))
        choice = self._cache.get(key)
        if choice is None:
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            choice = self._cache[key] = self._look_up(batch, query_len, key[2])
        return choice

    def ragged(self, batch: int, query_len: int, mean: int, longest: int) -> Choice:
        """What to use for a batch with one request far above the mean of the KV lengths.

        No entry speaks for it, but the table's model may: see `mla_tune.table.ragged`.
        """
        key = (batch, query_len, bucket_start(mean), bucket_start(longest))
        choice = self._ragged.get(key)
        if choice is None:
            if len(self._ragged) >= MAX_CACHED:
                self._ragged.clear()
            choice = self._ragged[key] = self._look_up_ragged(*key)
        return choice

    def _look_up_ragged(self, batch: int, query_len: int, mean: int, longest: int) -> Choice:
        shape = f"{batch}q{query_len}"
        table, answer = self.eager_table, None
        if table is not None and query_len == 1:
            ends = [(start, bucket_end(start)) for start in (mean, longest)]
            answer = table.answer_ragged(batch, *ends)
        if table is None or answer is None:
            return Choice(shape, "skewed", reason="lengths differ within the batch")
        if answer.outcome == "miss":
            reason = f"lengths differ within the batch: {unproven(answer)}"
            return Choice(shape, "skewed", reason=reason)
        if self._is_unforeseen(batch, answer):
            return Choice(shape, "skewed", reason=f"{answer.plan} is not foreseen for this batch")
        return self._hit(shape, answer.plan, None)

    def _is_unforeseen(self, batch: int, answer: Answer) -> bool:
        """Whether no workspace is reserved for an answer: rare, see `splits_wanted`."""
        return answer.value is not None and batch * answer.value > self._most_row_splits

    def _look_up(self, batch: int, query_len: int, start: int) -> Choice:
        asked = BatchShape((RequestGroup(query_len, max(start, query_len), batch),))
        table = self.eager_table
        if table is None:
            return Choice(str(asked), "miss", reason="no table for eager steps")
        found = table.measured(asked)
        if found is not None:
            speedup = found.entry.speedup if found.entry is not None else None
            proven = speedup.low if speedup is not None else math.inf
            most_skew = self._most_skew(found.plan, proven)
            return self._hit(str(asked), found.plan, None, most_skew)
        ends = (asked.max_kv_len, bucket_end(start))
        answer = table.answer(batch, ends, query_len)
        if answer is None:
            return Choice(str(asked), "miss", reason=table.lookup_shape(asked).reason)
        return self._between(str(asked), batch, answer)

    def _most_skew(self, plan: Plan, gain: float) -> float:
        """How skewed a batch may be for a plan that is proven to gain so much on a uniform one.

        Of all batches with that longest request the uniform one is the plan's slowest. The
        default, in the same splits at all of them, is faster by the longest length over the mean
        at most, and by `OUTSIDE` for what is not even about the waves of the uniform one. Where a
        scheduler evens out the parts, that is all there is to gain, and it goes with the first
        difference.
        """
        if not plan:
            return math.inf
        return ALIKE if self._evens_out and "num_kv_splits" in plan else gain / (1 + OUTSIDE)

    def _hit(
        self, shape: str, plan: Plan, longest_kv: int | None, most_skew: float = math.inf
    ) -> Choice:
        if self._applicable is not None and not self._applicable(plan):
            # What was measured is the whole plan; a part of it proves nothing.
            return Choice(shape, "miss", reason=f"{plan} cannot be applied here")
        return Choice(shape, "hit", plan, longest_kv=longest_kv, most_skew=most_skew)

    def _between(self, shape: str, batch: int, answer: Answer) -> Choice:
        """What the table's model has proven."""
        if answer.outcome == "miss":
            return Choice(shape, "miss", reason=unproven(answer))
        if self._is_unforeseen(batch, answer):
            return Choice(shape, "miss", reason=f"{answer.plan} is not foreseen for this batch")
        proven = answer.gain / (1 + answer.error) if answer.gain is not None else math.inf
        return self._hit(shape, answer.plan, None, self._most_skew(answer.plan, proven))

    def splits_wanted(self) -> list[tuple[int, int]]:
        """(rows of queries, splits) that eager steps may ask for."""
        wanted = [(rows, splits) for splits, rows in self._modelled_rows.items()]
        for entry in self.eager_table.entries if self.eager_table else ():
            group = _group(entry)
            splits = entry.plan.number("num_kv_splits")
            if splits is None or group is None:
                continue
            wanted.append((group.count * group.query_len, splits))
        return wanted


def _modelled_rows(table: Table) -> dict[int, int]:
    """The largest batch size that a table's model answers with each number of splits.

    Batch sizes and KV lengths are gone through by eighths of an octave, each batch size standing
    for all up to the next.
    """
    if table.between is None:
        return {}
    (fewest, shortest), largest = table.between.smallest, table.between.largest
    rows: dict[int, int] = {}
    for batch in _buckets(fewest, max(batch for batch, _ in largest)):
        for kv_len in _buckets(shortest, max(kv_len for _, kv_len in largest)):
            answer = table.answer(batch, (kv_len,))
            if answer is not None and answer.value is not None:
                rows[answer.value] = bucket_end(batch)  # they ascend
    return rows


def _buckets(first: int, last: int) -> Iterator[int]:
    """Where buckets start, from the one of ``first`` to the one of ``last``."""
    start = bucket_start(first)
    while start <= last:
        yield max(start, first)
        start = bucket_end(start) + 1


def _by_batch(entries: Iterable[Entry]) -> dict[tuple[int, int], Entry]:
    """Entries by requests and query length; of several the first of those over most KV lengths."""
    found: dict[tuple[int, int], Entry] = {}
    for entry in sorted(entries, key=lambda entry: -len(Workload.parse(entry.shape).cases)):
        group = _group(entry)
        if group is not None:
            found.setdefault((group.count, group.query_len), entry)
    return found


def _group(entry: Entry) -> RequestGroup | None:
    """The entry's only group of requests (of its longest KV), or None for a mixed batch."""
    shape = Workload.parse(entry.shape).cases[-1].shape
    return shape.groups[0] if len(shape.groups) == 1 else None


def _longest_kv(entry: Entry) -> int:
    return entry.holds_to or max(
        case.shape.max_kv_len for case in Workload.parse(entry.shape).cases
    )
