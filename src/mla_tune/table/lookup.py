"""Finding the entry for a batch: its own, in an eager table the nearest one, or none."""

__all__ = ["DEFAULT_WITHIN", "Lookup", "Table"]

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mla_tune.errors import InputError
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes import BatchShape, RequestGroup, Workload
from mla_tune.shapes.batch import MOST_REQUESTS
from mla_tune.shapes.lengths import Lengths
from mla_tune.table.between import Between
from mla_tune.table.entry import Entry
from mla_tune.table.header import Header
from mla_tune.table.index import Index
from mla_tune.table.ragged import answer_ragged
from mla_tune.table.store import TableFile
from mla_tune.table.waves import Answer, ProvenModel

# KV lengths are commonly a factor of two apart; 1.5 covers the gap between two such neighbours
# (each reaches past their geometric middle) and no more. In an eager table batch sizes and query
# lengths too.
DEFAULT_WITHIN = 1.5
# The longest that a batch spec can write: 999999999k.
LONGEST = MOST_REQUESTS * 1024


@dataclass(frozen=True)
class Lookup:
    """The answer to a lookup.

    Attributes:
        asked: what was asked for.
        entry: the entry that answers; None on a miss, and where the table's model answers.
        plan: the plan to use. It is empty where the backend's default is best, and on a miss.
        factor: by how much the farthest of batch, query and KV length is off; 1.0 is exact.
            Without an entry infinite.
        predicted_gain: latency of the default over the plan's, where the table's model answers.
        missed: on a miss, says why nothing answers.
    """

    asked: BatchShape
    entry: Entry | None
    plan: Plan
    factor: float = math.inf
    predicted_gain: float | None = None
    missed: Callable[[], str] | None = field(default=None, repr=False, compare=False)

    # Both are for people, and take longer to find and write than the answer.
    @property
    def shape(self) -> str:
        """What was asked for, as a batch spec."""
        return str(self.asked)

    @property
    def reason(self) -> str:
        """On a miss, why nothing answers."""
        return self.missed() if self.missed is not None else ""

    @property
    def is_hit(self) -> bool:
        return self.entry is not None or self.predicted_gain is not None

    @property
    def is_exact(self) -> bool:
        return self.entry is not None and self.factor == 1.0


class Table:
    """A table in memory, for lookups.

    Attributes:
        header: what the table is true for.
        entries: one a batch shape; latencies are in µs.
        between: the model that answers between an eager table's single-token entries, where there
            is one.

    Example:
        >>> from mla_tune import Table
        >>> name = "TRITON_MLA-NVIDIA_H200-heads_16-kv_auto-graph-vllm_0.26.0.yaml"
        >>> table = Table.load(f"tuned_configs/{name}")
        >>> found = table.lookup(batch=32, kv_len=4096)
        >>> found.is_exact, found.entry.shape
        (True, '32q1s{1k,4k,16k}')
        >>> near = table.lookup(batch=32, kv_len=20_000)
        >>> near.is_hit, near.is_exact, round(near.factor, 2)
        (True, False, 1.22)
        >>> table.lookup(batch=33, kv_len=4096).is_hit
        False
    """

    def __init__(
        self, header: Header, entries: tuple[Entry, ...], between: Between | None = None
    ) -> None:
        self.header = header
        self.entries = entries
        self.between = between
        # Frozen splits of another batch size, even one beside it, may be slower than the default:
        # by how many waves of thread blocks a batch takes, latency over batch size is a saw-tooth.
        self._is_graph = header.engine.mode == "graph"
        self._model: ProvenModel | None = None
        if between is not None and not self._is_graph:
            self._model = between.model(header.device.sm_count, header.model["num_q_heads"])
        self._workloads = [Workload.parse(entry.shape) for entry in entries]
        index = Index(self._workloads, [entry.guards for entry in entries])
        self._nearest = index.nearest_of_batch if self._is_graph else index.nearest

    @classmethod
    def load(cls, path: Path | str) -> "Table":
        """Read the table at ``path``.

        Raises:
            InputError: as `TableFile.load`.
        """
        file = TableFile.load(Path(path))
        return cls(file.header, file.entries, file.between)

    def lookup(
        self, *, batch: int, kv_len: int, query_len: int = 1, within: float = DEFAULT_WITHIN
    ) -> Lookup:
        """Find the plan for ``batch`` requests of ``query_len`` new and ``kv_len`` tokens in all.

        Returns the exact entry. Else, from a graph table, the entry of exactly this batch and query
        length whose KV lengths, guards and all between them, are nearest and within a factor
        ``within``, or a miss. Else, for a single-token decode in an eager table with a model, what
        the model has proven, or a miss. Else the nearest entry whose batch, query length and KV
        length are each within a factor ``within`` of what was asked, or a miss. A single-token
        decode is only ever answered by a single-token entry.

        Raises:
            InputError: a length below one or beyond those of a batch spec, or a KV length below the
                query length.
        """
        is_length = 1 <= query_len <= kv_len <= LONGEST
        if not (is_length and 1 <= batch <= MOST_REQUESTS and within >= 1.0):
            raise InputError(
                f"cannot look up batch {batch}, query length {query_len}, KV length {kv_len} "
                f"within a factor {within}",
                valid="all at least 1, a KV length that counts the query too, and no number "
                "beyond those of a batch spec",
            )
        shape = BatchShape((RequestGroup(query_len, kv_len, batch),))
        return self.lookup_shape(shape, within=within)

    def lookup_shape(self, shape: BatchShape, *, within: float = DEFAULT_WITHIN) -> Lookup:
        """Find the plan for any batch shape.

        One of several query lengths is answered only by its exact entry, and so is one of several
        KV lengths, unless the table has a model.
        """
        if self._model is not None and shape.max_query_len == 1:
            factor, index = self._nearest(shape, 1.0)
            if index < 0:
                return self._modelled(shape)
            return Lookup(shape, self.entries[index], self.entries[index].plan, factor)
        factor, index = self._nearest(shape, within)
        if index < 0:
            return Lookup(shape, None, UNTUNED, missed=partial(self._miss_reason, shape, within))
        entry = self.entries[index]
        plan = _same_paths(entry.plan, self._workloads[index].cases[0].shape, shape)
        return Lookup(shape, entry, plan, factor)

    def answer(self, batch: int, kv_lens: tuple[int, ...]) -> Answer | None:
        """What the model says of single-token decodes, all of one length of ``kv_lens`` or between.

        None without a model.
        """
        if self._model is None or self.between is None:
            return None
        return self._model.answer(batch, [self.between.length(kv_len) for kv_len in kv_lens])

    def answer_ragged(
        self, batch: int, means: tuple[int, ...], longest: tuple[int, ...]
    ) -> Answer | None:
        """What the model says of all batches with such a mean and longest KV length.

        The arguments are as of `mla_tune.table.ragged.answer_ragged`. None without a model.
        """
        if self._model is None or self.between is None:
            return None
        lengths = [self.between.length(kv_len) for kv_len in longest]
        return answer_ragged(self._model, batch, means, lengths)

    def _modelled(self, shape: BatchShape) -> Lookup:
        batch, longest = shape.num_requests, (shape.max_kv_len,)
        lengths = Lengths(batch, shape.num_kv_tokens, *longest)
        if lengths.is_skewed:
            answer = self.answer_ragged(batch, (lengths.mean, lengths.mean + 1), longest)
        else:
            answer = self.answer(batch, longest)
        assert answer is not None
        if answer.outcome == "miss":
            return Lookup(shape, None, UNTUNED, missed=partial(self.unproven, answer))
        return Lookup(shape, None, answer.plan, predicted_gain=answer.gain)

    def unproven(self, answer: Answer) -> str:
        """Why a miss of the model is one."""
        if answer.gain is None:
            return "outside of what was measured; the backend's default applies"
        return (
            f"a predicted gain of {answer.gain:.3f}x is not proven, since one may be "
            f"{answer.error:.1%} too large; the backend's default applies"
        )

    def _miss_reason(self, shape: BatchShape, within: float) -> str:
        factor, index = self._nearest(shape)
        if index < 0:
            kind = "batch and query length" if self._is_graph else "kind"
            return f"no entry of this {kind}; the backend's default applies"
        return (
            f"the nearest entry, {self.entries[index].shape}, is off by a factor {factor:.2f}, "
            f"beyond the bound of {within:g}; the backend's default applies"
        )


def _same_paths(plan: Plan, measured: BatchShape, asked: BatchShape) -> Plan:
    """Move a threshold with the query length, so that the batch takes the path that was measured.

    A threshold of 256 that won for queries of 256 says "decode"; for a neighbour of 300 tokens,
    256 would say "prefill".
    """
    threshold = plan.number("reorder_batch_threshold")
    if threshold is None or not asked.is_uniform:
        return plan
    if measured.max_query_len <= threshold:
        return plan.having(reorder_batch_threshold=max(threshold, asked.max_query_len))
    return plan.having(reorder_batch_threshold=max(1, min(threshold, asked.max_query_len - 1)))
