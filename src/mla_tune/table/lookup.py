"""Finding the entry for a batch: its own, in an eager table the nearest one, or none."""

__all__ = ["DEFAULT_WITHIN", "Lookup", "Table"]

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mla_tune.errors import InputError
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.printable import counted, printable
from mla_tune.registry import BACKENDS
from mla_tune.shapes import BatchShape, RequestGroup
from mla_tune.shapes.batch import LONGEST_KV_LEN, MOST_REQUESTS
from mla_tune.shapes.lengths import Lengths
from mla_tune.table.between import Between
from mla_tune.table.entry import Entry
from mla_tune.table.header import Header
from mla_tune.table.index import Index
from mla_tune.table.longer import LongerModel
from mla_tune.table.ragged import answer_ragged
from mla_tune.table.steps import EagerSteps, StepAnswer
from mla_tune.table.store import TableFile
from mla_tune.table.waves import Answer, ProvenModel

# Of a graph table: KV lengths are commonly a factor of two apart; 1.5 covers the gap between two
# such neighbours (each reaches past their geometric middle) and no more.
DEFAULT_WITHIN = 1.5


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        if not self.is_hit:
            return f"<Lookup {self.shape}: miss>"
        by = f"off by {self.factor:.2f}" if self.entry is not None else "by the model"
        how = "exact" if self.is_exact else by
        return printable(f"<Lookup {self.shape}: {self.plan if self.plan else 'default'}, {how}>")

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
        """Whether an entry answers, or the table's model; the plan may still be the default."""
        return self.entry is not None or self.predicted_gain is not None

    @property
    def is_exact(self) -> bool:
        """Whether an entry answers that is of this very batch."""
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
        >>> table
        <Table TRITON_MLA, NVIDIA H200, 16 heads, KV auto, graph, vLLM 0.26.0: 13 entries>
        >>> table.lookup(batch=32, kv_len=4096)
        <Lookup 32q1s4k: num_kv_splits=8, exact>
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
        # The plan of another batch size, even one beside it, may be slower than the default: by how
        # many waves of thread blocks a batch takes, latency over batch size is a saw-tooth.
        self._is_graph = header.engine.mode == "graph"
        self._model: ProvenModel | None = None
        self._longer: LongerModel | None = None
        if between is not None and not self._is_graph:
            gpu = header.device.sm_count, header.model["num_q_heads"]
            self._model = between.model(*gpu)
            # Where vLLM's release sets no bound, the knob acts on every batch.
            most = header.full_engine.max_cudagraph_capture_size
            self._longer = between.longer_model(*gpu, MOST_REQUESTS if most is None else most)
        self._steps: EagerSteps[StepAnswer] = EagerSteps(self, lambda _, answer: answer)
        self._index = Index([entry.shape for entry in entries], lambda n: entries[n].guards)

    def __repr__(self) -> str:
        return printable(f"<Table {self.header.title}: {counted(len(self.entries), 'entry')}>")

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

        Returns the exact entry. Else of the entries of exactly this batch and query length: from a
        graph table the one whose KV lengths, guards and all between them, are nearest and within a
        factor ``within``; from an eager table one that was measured in the same eighth of an octave
        of KV lengths. Else what an eager table's model of such queries has proven. Else a miss.

        Raises:
            InputError: a length below one or beyond those of a batch spec, or a KV length below the
                query length.
        """
        is_length = 1 <= query_len <= kv_len <= LONGEST_KV_LEN
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

        One of several query lengths is answered only by its exact entry. One of several KV lengths
        that has none gets from an eager table what an engine gets, which knows its mean and its
        longest request: what is said of uniform batches of the longest, as far as the gain covers
        the difference, else what the table's model has proven.
        """
        found = self.measured(shape, within)
        if found is not None:
            return found
        is_known = len(shape.groups) > 1 or self.between is not None
        if self._is_graph or not shape.is_uniform or not is_known:
            return Lookup(shape, None, UNTUNED, missed=partial(self.why_none, shape, within))
        batch, longest = shape.num_requests, shape.max_kv_len
        lengths = Lengths(batch, shape.num_kv_tokens, longest)
        answer = self._steps.step(batch, shape.max_query_len, longest, lengths)
        if answer.outcome != "hit":
            return Lookup(shape, None, UNTUNED, missed=answer.missed)
        factor = lengths.skew if answer.entry is not None else math.inf
        return Lookup(shape, answer.entry, answer.plan, factor, answer.gain)

    def measured(self, shape: BatchShape, within: float = DEFAULT_WITHIN) -> Lookup | None:
        """What the entry says that was measured for ``shape``; None where there is none."""
        index = self._index
        factor, position = (
            index.nearest(shape, within) if self._is_graph else index.in_bucket(shape)
        )
        if position < 0:
            return None
        return Lookup(shape, self.entries[position], self.entries[position].plan, factor)

    def entry_of(self, shape: BatchShape) -> Entry | None:
        """The entry that was measured for ``shape``, if there is one."""
        found = self.measured(shape)
        return None if found is None else found.entry

    @property
    def evens_out(self) -> bool:
        """Whether the backend has a scheduler that evens out what is ragged."""
        return BACKENDS[self.header.backend].cut == "scheduled"

    def answer(self, batch: int, kv_lens: tuple[int, ...], query_len: int = 1) -> Answer | None:
        """What the model says of uniform batches, all of one length of ``kv_lens`` or between.

        None without a model of such queries.
        """
        if query_len > 1:
            longer = self._longer
            return None if longer is None else longer.answer(batch, query_len, kv_lens)
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

    def why_none(self, shape: BatchShape, within: float = DEFAULT_WITHIN) -> str:
        """Why no entry answers for ``shape``."""
        factor, index = self._index.nearest(shape)
        if index < 0:
            return "no entry of this batch and query length; the backend's default applies"
        beyond = f"beyond the bound of {within:g}" if self._is_graph else "more than a few percent"
        return (
            f"the nearest entry, {self.entries[index].shape}, is off by a factor {factor:.2f}, "
            f"{beyond}; the backend's default applies"
        )
