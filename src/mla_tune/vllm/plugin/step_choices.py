"""What the tables say about one step after another of a builder, from CPU data only."""

__all__ = ["StepChoices"]

from typing import Any

from mla_tune.shapes.array_lengths import lengths_in
from mla_tune.shapes.buckets import bucket_start
from mla_tune.shapes.lengths import Lengths
from mla_tune.vllm.plugin.choice import VLLM_OWN, Choice
from mla_tune.vllm.plugin.deployment import Deployment

# Reading the lengths within a batch costs as much as several lookups, and from step to step they
# change by a token and a request or two. So it is done after so many steps, or when the number of
# requests has changed by more than a share of it, or the bucket of the longest has.
STEPS_BETWEEN_READINGS = 16
SHARE_BETWEEN_READINGS = 1 / 8


class StepChoices:
    """The choices for the steps of one builder.

    ``batch`` is vLLM's CommonAttentionMetadata, ``metadata`` what its builder made of it.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._tick = 0
        # Requests, query length and bucket of the batch whose lengths were read last.
        self._last_read = (0, 0, 0)
        self._lengths: Lengths | None = None

    def captured(self, batch: Any) -> Choice:
        """The choice to freeze into the graph that is being captured."""
        key = (batch.num_reqs, batch.max_query_len)
        lookups = self._deployment.lookups
        if lookups is None:
            return Choice(f"{key[0]}q{key[1]}", "miss", reason="no table")
        planned = self._deployment.planned.get(key)
        return planned if planned is not None else lookups.captured(*key)

    def eager(self, batch: Any) -> Choice:
        """The choice for a step outside the graphs; one of vLLM's own for a mixed batch."""
        num_reqs, query_len = batch.num_reqs, batch.max_query_len
        if batch.num_actual_tokens != num_reqs * query_len:
            return VLLM_OWN
        longest, deployment = batch.max_seq_len, self._deployment
        if longest <= query_len and (num_reqs, query_len) in deployment.planned:
            # The warm-up of a capture: the same choice, so that Triton compiles here and not
            # while a stream is captured.
            return deployment.planned[num_reqs, query_len]
        if deployment.lookups is None:
            return VLLM_OWN
        self._tick += 1
        key = (num_reqs, query_len, bucket_start(longest))
        if self._is_to_be_read(key):
            self._last_read = key
            lens = _kv_lens(batch, num_reqs)
            self._lengths = None if lens is None else lengths_in(lens)
        return deployment.lookups.steps.step(num_reqs, query_len, longest, self._lengths)

    def _is_to_be_read(self, key: tuple[int, int, int]) -> bool:
        """Whether to read the lengths within this batch, or to go by those of an earlier one."""
        read = self._last_read
        return (
            self._tick % STEPS_BETWEEN_READINGS == 0
            or key[1:] != read[1:]
            or abs(key[0] - read[0]) > SHARE_BETWEEN_READINGS * read[0]
        )

    def decodes(self, batch: Any, metadata: Any) -> Choice:
        """The choice for the requests of a mixed batch that take the decode path."""
        lookups, count = self._deployment.lookups, metadata.num_decodes
        lens = _kv_lens(batch, count)
        query_len, ragged = divmod(metadata.num_decode_tokens, count)
        if lookups is None or lens is None or ragged:
            return VLLM_OWN
        if query_len == 0 or not metadata.num_prefills:
            return VLLM_OWN
        lengths = lengths_in(lens)
        return lookups.steps.step(count, query_len, max(lengths.longest, query_len), lengths)


def _kv_lens(batch: Any, count: int) -> Any:
    """The KV lengths of the first ``count`` requests, as numpy: half of torch's cost here."""
    lens = batch.seq_lens_cpu_upper_bound
    return None if lens is None else lens.numpy()[:count]
