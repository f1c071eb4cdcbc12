"""Lookups fast enough for every step: one dict access once a kind of step has been seen."""

__all__ = ["ENDS_EARLY", "UNIFORM_ALONE", "Lookups"]

import math
from collections.abc import Callable, Collection, Iterable, Iterator

from mla_tune.plan.plan import Plan
from mla_tune.shapes import RequestGroup, Workload
from mla_tune.shapes.buckets import bucket_end, bucket_start
from mla_tune.table import Entry, Table
from mla_tune.table.steps import EagerSteps, StepAnswer
from mla_tune.vllm.plugin.choice import Choice

ENDS_EARLY = "measured to shorter KV lengths than this engine serves"
UNIFORM_ALONE = "measured on uniform batches alone"

Usable = Callable[[Plan], bool]


class Lookups:
    """The graph table and the eager table of one engine.

    Attributes:
        eager_table: the second, or None.
        steps: what it says of one step after another.

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
        self._graph_usable = graph_usable
        self._applicable = applicable
        self._reach = reach
        self._unguarded = unguarded
        self._captured = _by_batch(graph.entries if graph else ())
        self.steps: EagerSteps[Choice] = EagerSteps(eager, self._kept)
        self._modelled_rows: dict[int, int] = {}
        if eager is not None and eager.between is not None:
            self._modelled_rows = _modelled_rows(eager)
        self._most_row_splits = max(
            (rows * splits for splits, rows in self._modelled_rows.items()), default=0
        )

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
        Lengths beyond what an entry's record of served steps reaches are left to that record.
        """
        if batch > 1 and not entry.holds_ragged:
            return UNIFORM_ALONE
        if self._reach is None:
            return None
        needed = self._reach(batch)
        if entry.served is not None:
            needed = min(needed, entry.served.to)
        return ENDS_EARLY if _longest_kv(entry) < needed else None

    def _kept(self, batch: int, answer: StepAnswer) -> Choice:
        """The choice of an eager step of ``batch`` requests, where its plan can be applied."""
        if answer.outcome != "hit":
            return Choice(answer.shape, answer.outcome, reason=answer.reason)
        splits = answer.plan.number("num_kv_splits") or 0
        # Rare, see `splits_wanted`: no workspace is reserved for it.
        if answer.entry is None and batch * splits > self._most_row_splits:
            reason = f"{answer.plan} is not foreseen for this batch"
            return Choice(answer.shape, "miss", reason=reason)
        return self._hit(answer.shape, answer.plan, None, answer.most_skew)

    def _hit(
        self, shape: str, plan: Plan, longest_kv: int | None, most_skew: float = math.inf
    ) -> Choice:
        if self._applicable is not None and not self._applicable(plan):
            # What was measured is the whole plan; a part of it proves nothing.
            return Choice(shape, "miss", reason=f"{plan} cannot be applied here")
        return Choice(shape, "hit", plan, longest_kv=longest_kv, most_skew=most_skew)

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
