"""The cases of ``graph:`` in a shapes file, for the release and GPU that run them."""

__all__ = [
    "graph_cases",
    "largest_capture",
    "longest_beside",
    "longest_of_one",
    "longest_served",
]

from collections.abc import Iterable

from mla_tune.environment import Environment
from mla_tune.shapes import Case, Workload
from mla_tune.shapes.file import ShapesFile
from mla_tune.shapes.graph import GraphShapes
from mla_tune.vllm.captures import captured_requests, default_capture_sizes
from mla_tune.vllm.compat import NEWEST_RELEASE
from mla_tune.vllm.compat.graphs import default_capture_size

# Where there is no GPU to ask, as on a laptop.
NO_CAPABILITY = "0.0"


def largest_capture(shapes: ShapesFile, environment: Environment) -> int | None:
    """The largest captured batch in tokens: the shapes file's, else vLLM's own on this GPU."""
    asked, vllm = shapes.max_cudagraph_capture_size, environment.software.get("vllm")
    if asked is not None or vllm is None or environment.compute_capability is None:
        return asked
    listed = shapes.graph.capture_sizes if shapes.graph is not None else None
    # An engine takes the largest of its sizes for it. One below vLLM's own makes no other table.
    return max(default_capture_size(environment.compute_capability, vllm), *(listed or (0,)))


def graph_cases(shapes: ShapesFile, environment: Environment) -> tuple[Case, ...]:
    """What is tuned in graph mode: what ``graph:`` says, or else the listed shapes."""
    if shapes.graph is None:
        return shapes.cases
    graph = shapes.graph
    sizes = graph.capture_sizes or _default_sizes(shapes, graph, environment)
    cases = graph.cases(captured_requests(sizes, graph.query_len, graph.max_num_seqs))
    most = shapes.max_tokens
    return tuple(case for case in cases if most is None or case.shape.num_kv_tokens <= most)


def longest_served(shapes: ShapesFile, requests: int) -> int:
    """The longest KV length, in tokens, that all of ``requests`` can have in the engine.

    ``--max-tokens`` bounds it too.
    """
    return min([shapes.max_model_len, *(tokens // requests for tokens in _bounds(shapes))])


def longest_of_one(shapes: ShapesFile, workload: Workload) -> int:
    """The longest KV length, in tokens, of one request whose batch is otherwise the shortest.

    The batch is ``workload``'s, and the others have its shortest listed length.
    """
    return longest_beside(workload, shapes.max_model_len, _bounds(shapes))


def longest_beside(workload: Workload, longest: int, in_all: Iterable[int]) -> int:
    """As `longest_of_one`, where a request may have ``longest`` and a batch ``in_all`` tokens."""
    short = workload.listed[0].shape
    others = (short.num_requests - 1) * short.max_kv_len
    return min([longest, *(tokens - others for tokens in in_all)])


def _bounds(shapes: ShapesFile) -> list[int]:
    """What bounds the KV tokens of a whole batch."""
    in_cache = shapes.graph.kv_cache_tokens if shapes.graph is not None else None
    return [tokens for tokens in (in_cache, shapes.max_tokens) if tokens is not None]


def _default_sizes(
    shapes: ShapesFile, graph: GraphShapes, environment: Environment
) -> tuple[int, ...]:
    return default_capture_sizes(
        environment.software.get("vllm", NEWEST_RELEASE),
        environment.compute_capability or NO_CAPABILITY,
        max_num_seqs=graph.max_num_seqs,
        query_len=graph.query_len,
        largest=shapes.max_cudagraph_capture_size,
    )
