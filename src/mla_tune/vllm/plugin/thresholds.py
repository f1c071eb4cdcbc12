"""The query length up to which a step's requests take the decode path, step by step.

The builder's attribute ``reorder_batch_threshold`` is vLLM's own whenever anybody else can read
it: model runner V1 takes it at start to order each batch, and ranks that order a batch differently
add rows of different requests in their all-reduces. A tuned threshold acts inside ``build`` alone,
on a batch that has been ordered by vLLM's.

The result is right in any order. vLLM's ``split_decodes_and_prefills`` (0.20.2, 0.26.0, 0.32.0 and
0.33.0) hands the rows before the first that is longer than the threshold to the decode path, and
that row with everything behind it to the prefill path, which takes rows of any length, with context
and without. With ``require_uniform`` it is the first row of another length than the batch's first:
there the threshold only says whether that first length decodes. ``treat_short_extends_as_decodes``
is off only under prefill context parallelism, where no table is used. What needs a proof of its own
is the decode path at lengths beyond vLLM's threshold: see `DecodeLengths`.

An order by another threshold can cost time. V1 leaves the extends up to its threshold in the order
of arrival, and those above it likewise, so a request that ought to decode may stand behind one that
ought not. Its entries then say nothing for the path it would take, and the step is vLLM's own. V2
sorts by length, where that does not happen.

A sparse backend's prefill path attends to all of a context up to the top-k, and beyond it to what
the indexer picked, as its decode path does. The indexer divides the batch for itself, by 1 + the
draft tokens (``DeepseekV32IndexerMetadataBuilder.decode_threshold``), picks for every token either
way, and leaves that out only where the attention's own metadata says that nothing reads it
(``sparse_attn_indexer``, 0.32 on). So a threshold of the attention alone is safe. But that is work
which no entry was measured with, so it may only get less: no threshold is above vLLM's own.
"""

__all__ = ["Thresholds"]

from collections.abc import Sequence
from typing import Any

from mla_tune.shapes.buckets import bucket_start
from mla_tune.table import Entry
from mla_tune.vllm.plugin.decode_lengths import DecodeLengths
from mla_tune.vllm.plugin.single import best_threshold


class Thresholds:
    """What the tables say about the thresholds of one builder.

    ``batch`` is vLLM's CommonAttentionMetadata.

    Attributes:
        vllm_own: the builder's attribute, in tokens.
        least: 1 + the draft tokens that take the decode path; no threshold is below it.
        mixed: for batches of several kinds of requests.
    """

    def __init__(
        self,
        vllm_own: int,
        least: int = 1,
        entries: Sequence[Entry] = (),
        *,
        topk: int | None = None,
    ) -> None:
        """Take what the eager ``entries`` say of uniform batches, none being vLLM's own for all.

        ``topk`` is how many tokens a sparse backend attends to; None for a dense one.
        """
        self.vllm_own = self.mixed = vllm_own
        self.least = least
        self._topk = topk
        self._decoded = DecodeLengths.of(entries if topk is None else (), vllm_own)
        self._any_order = False

    def tune_mixed(self, entries: Sequence[Entry], *, uniform_only: bool) -> int:
        """Give mixed batches the best single threshold that ``entries`` prove, and return it.

        ``uniform_only`` says that only leading requests of one length may decode.
        """
        best = best_threshold(entries, self.vllm_own, may_rise=self._topk is None)
        self.mixed = max(best, self.least)
        self._any_order = uniform_only
        return self.mixed

    def of_uniform(self, batch: Any, wanted: int | None) -> int:
        """The threshold for a batch of one query length; ``wanted`` is what its lookup says."""
        if wanted is None or self._is_past_its_entry(batch.max_seq_len):
            return self.vllm_own
        threshold = max(wanted, self.least)
        if self.vllm_own < batch.max_query_len <= threshold:
            # An entry with context answers for steps that have requests without, too.
            return threshold if self._decoded.speak_for(batch) else self.vllm_own
        return threshold

    def of_mixed(self, batch: Any) -> int:
        """The threshold for a batch of several query lengths."""
        mixed = self.mixed
        if mixed == self.vllm_own or batch.max_query_len <= min(mixed, self.vllm_own):
            return self.vllm_own
        lens = _query_lens(batch)
        if self._topk is not None and not _attend_within(self._topk, mixed, lens, batch):
            return self.vllm_own
        if self._any_order or _is_split_by(mixed, lens):
            return mixed
        return self.vllm_own

    def _is_past_its_entry(self, longest: int) -> bool:
        """Whether only the end of an entry's bucket is beyond the top-k, where ``longest`` is."""
        topk = self._topk
        return topk is not None and bucket_start(longest) <= topk < longest


def _query_lens(batch: Any) -> Any:
    starts = batch.query_start_loc_cpu.numpy()[: batch.num_reqs + 1]
    return starts[1:] - starts[:-1]


def _attend_within(topk: int, threshold: int, lens: Any, batch: Any) -> bool:
    """Whether all requests of more than ``threshold`` tokens have contexts up to the top-k.

    They attend by the top-k together as soon as one has not, which no entry was measured with.
    """
    kv_lens = batch.seq_lens_cpu_upper_bound
    if kv_lens is None:
        return False
    return not (kv_lens.numpy()[: batch.num_reqs][lens > threshold] > topk).any()


def _is_split_by(threshold: int, lens: Any) -> bool:
    """Whether no request of up to ``threshold`` tokens stands behind a longer one."""
    decodes = lens <= threshold
    split = int(decodes.argmin())
    behind = lens[split:]
    # Rows of no tokens pad a batch.
    return bool(decodes[split]) or not ((behind <= threshold) & (behind > 0)).any()
