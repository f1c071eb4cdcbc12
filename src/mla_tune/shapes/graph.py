"""``graph:`` of a shapes file: decode as an engine captures it, one plan a captured size."""

__all__ = ["GraphShapes", "graph_shapes"]

from collections.abc import Iterable
from dataclasses import dataclass

from mla_tune.errors import InputError
from mla_tune.files.document import Document
from mla_tune.shapes.batch import BatchShape, RequestGroup, format_size
from mla_tune.shapes.sections import GraphSection
from mla_tune.shapes.workload import Case


@dataclass(frozen=True)
class GraphShapes:
    """Which captured sizes to tune, and for which KV lengths.

    Attributes:
        capture_sizes: in tokens; None for those that the release captures by itself.
        max_num_seqs: the engine's.
        query_len: tokens of a request's step: 1 + the engine's draft tokens.
        kv_lens: KV lengths and their weights, the same for every size that the cache holds them of.
        kv_cache_tokens: how many tokens the engine's KV cache holds, over all requests; None
            where that is not said.
    """

    capture_sizes: tuple[int, ...] | None
    max_num_seqs: int
    query_len: int
    kv_lens: tuple[tuple[int, float], ...]
    kv_cache_tokens: int | None = None

    @property
    def longest_kv(self) -> int:
        return max(kv_len for kv_len, _ in self.kv_lens)

    def cases(self, requests: Iterable[int]) -> tuple[Case, ...]:
        """The cases of graphs that hold so many ``requests``, in this order."""
        return tuple(
            Case(BatchShape.of([RequestGroup(self.query_len, kv_len, count)]), weight)
            for count in dict.fromkeys(requests)
            for kv_len, weight in self._held(count)
        )

    def _held(self, requests: int) -> list[tuple[int, float]]:
        """Those of ``kv_lens`` that the cache holds of so many requests; the shortest always."""
        if self.kv_cache_tokens is None:
            return list(self.kv_lens)
        shortest = min(kv_len for kv_len, _ in self.kv_lens)
        most = max(shortest, self.kv_cache_tokens // requests)
        return [(kv_len, weight) for kv_len, weight in self.kv_lens if kv_len <= most]


def graph_shapes(document: Document, section: GraphSection | None) -> GraphShapes | None:
    """What ``graph:`` says, or None where the file has none.

    Raises:
        InputError: a KV length below the query length.
    """
    if section is None:
        return None
    query_len = 1 + section.draft_tokens
    for kv_len in section.kv_lens:
        if kv_len < query_len:
            raise InputError(
                f"{document.where(('graph', 'kv_lens'))}: KV length {format_size(kv_len)} is below "
                f"the {query_len} tokens of a step with {section.draft_tokens} draft tokens",
                valid="the KV length counts the new tokens too",
            )
    sizes = section.capture_sizes
    return GraphShapes(
        capture_sizes=None if isinstance(sizes, str) else tuple(sizes),
        max_num_seqs=section.max_num_seqs,
        query_len=query_len,
        kv_lens=tuple(sorted(section.kv_lens.items())),
        kv_cache_tokens=section.kv_cache_tokens,
    )
