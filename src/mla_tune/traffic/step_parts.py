"""From the metadata of a step to the kinds of step that it counts as."""

__all__ = ["StepPart", "kind_of", "parts_of"]

from collections.abc import Iterator
from typing import Any, NamedTuple

from mla_tune.shapes.array_lengths import lengths_in
from mla_tune.shapes.buckets import bucket_start
from mla_tune.shapes.lengths import Lengths
from mla_tune.traffic.histogram import StepKind, kv_bucket_start


class StepPart(NamedTuple):
    """The decodes or the prefills of one step.

    Attributes:
        batch: rows; in graph mode the size that was captured.
        query_len: new tokens a row.
        kv_total: KV lengths of all requests, summed.
        longest_kv_len: of the longest request.
        requests: rows that are requests and no padding.
    """

    batch: int
    query_len: int
    kv_total: int
    longest_kv_len: int
    requests: int

    @property
    def lengths(self) -> Lengths:
        """The KV lengths of the requests."""
        return Lengths(self.requests, self.kv_total, self.longest_kv_len)


def parts_of(mode: str, batch: Any, metadata: Any, ranks: int = 1) -> Iterator[StepPart]:
    """The decode part and the prefill part of a step, without those of dummy batches.

    Args:
        mode: ``graph`` for the replay of a captured graph, else ``eager``.
        batch: vLLM's CommonAttentionMetadata; only its CPU data is read.
        metadata: what was built from it.
        ranks: that share the KV cache of a request; lengths are what one of them holds.
    """
    bound = batch.seq_lens_cpu_upper_bound
    if bound is None:
        return
    lens = -(-bound.numpy() // ranks)
    rows = min(metadata.num_reqs, len(lens))
    decodes = min(metadata.num_decodes, rows)
    decode_tokens = metadata.num_decode_tokens
    if decodes and (part := _part(mode, lens[:decodes], decode_tokens)):
        yield part
    if decodes < rows:
        new_tokens = batch.num_actual_tokens - decode_tokens
        if part := _part(mode, lens[decodes:rows], new_tokens):
            yield part


def _part(mode: str, lens: Any, new_tokens: int) -> StepPart | None:
    """Rows with KV lengths ``lens`` that bring ``new_tokens`` among them; None for a dummy."""
    query_len = new_tokens // len(lens)
    # Rows that pad a batch to a graph's size have length 0: in V1 and V2 of vLLM 0.20.2,
    # 0.26.0, 0.32.0 and 0.33.0.
    lengths = lengths_in(lens)
    # Dummy batches, of a warm-up or an idle data-parallel rank, have no context.
    shortest_real = query_len if mode == "graph" else 1
    if query_len < 1 or lengths.longest <= shortest_real:
        return None
    return StepPart(len(lens), query_len, lengths.total, lengths.longest, lengths.requests)


def kind_of(mode: str, outcome: str, part: StepPart) -> StepKind:
    """The kind of step that ``part`` counts as; ``outcome`` is what the tables said of the step."""
    batch, query_len, lengths = part.batch, part.query_len, part.lengths
    mean = max(query_len, lengths.mean)
    if mode == "eager":
        if lengths.is_skewed and outcome != "hit":
            outcome = "skewed"
        elif outcome == "skewed" and lengths.is_alike:
            outcome = "mixed"  # the other part of the step is the skewed one
        batch, query_len = bucket_start(lengths.requests), kv_bucket_start(query_len)
    longest = kv_bucket_start(lengths.longest)
    return StepKind(mode, outcome, batch, query_len, kv_bucket_start(mean), longest)
