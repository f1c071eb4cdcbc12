"""Which batches vLLM captures into decode graphs, worked out without importing vLLM."""

__all__ = ["captured_requests", "default_capture_sizes"]

from collections.abc import Iterable

from mla_tune.vllm.compat import graphs


def default_capture_sizes(
    vllm: str,
    compute_capability: str,
    *,
    max_num_seqs: int,
    query_len: int = 1,
    largest: int | None = None,
) -> tuple[int, ...]:
    """``cudagraph_capture_sizes``, in tokens, of an engine that does not give them.

    As ``VllmConfig._set_cudagraph_sizes`` has them where ``max_num_batched_tokens`` is above all
    of them and ``performance_mode`` is left alone.

    Args:
        vllm: the release.
        compute_capability: of the GPU, such as ``9.0``.
        max_num_seqs: the engine's.
        query_len: 1 + the engine's draft tokens.
        largest: its ``max_cudagraph_capture_size``, where it is given.
    """
    ceiling = graphs.default_capture_size(compute_capability, vllm)
    limit = largest or min(2 * max_num_seqs * query_len, ceiling)
    sizes = set(_grid(limit))
    if largest is None and graphs.captures_whole_decodes(vllm):
        most = min(max_num_seqs, ceiling) if query_len > 1 else max_num_seqs
        requests = {*(_grid(most) if query_len > 1 else ()), most}
        sizes.update(count * query_len for count in requests if count * query_len <= limit)
    return tuple(sorted(sizes))


def _grid(limit: int) -> tuple[int, ...]:
    sizes = (1, 2, 4, *range(8, 256, 8), *range(256, limit + 1, 16))
    return tuple(size for size in sizes if size <= limit)


def captured_requests(sizes: Iterable[int], query_len: int, max_num_seqs: int) -> tuple[int, ...]:
    """How many requests of ``query_len`` tokens each of the graphs captured at ``sizes`` holds.

    Rounded up: vLLM moves the sizes to multiples of the query length. At most all sequences: a
    larger graph is captured for them too, or not at all.
    """
    return tuple(dict.fromkeys(min(-(-size // query_len), max_num_seqs) for size in sizes))
