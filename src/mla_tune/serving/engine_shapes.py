"""The shapes file of an engine: what it captures, and what it runs eagerly."""

__all__ = ["eager_shapes", "engine_shapes", "shapes_text", "tuned_mode"]

from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

import yaml

from mla_tune.printable import printable
from mla_tune.quantization import QUANTIZATIONS
from mla_tune.registry import BACKENDS
from mla_tune.serving.engine import ServedEngine
from mla_tune.shapes import BatchShape, RequestGroup
from mla_tune.shapes.eager import spread

KV_LENS = {1024: 2, 4096: 2, 16384: 1}
"""KV lengths and their weights where nobody has said what is served; as in ``examples/``."""

LONGEST_EAGER = 65536
MOST_EAGER_TOKENS = 2**20
"""Of the KV cache in an eager batch, where the size of the cache is not known."""

EAGER_POINTS = 15


def tuned_mode(engine: ServedEngine) -> str:
    """``graph`` where decode steps replay full graphs of a captured backend, or ``eager``."""
    name = engine.backend
    captured = name is None or name not in BACKENDS or "graph" in BACKENDS[name].modes
    return "graph" if engine.decode_graphs and engine.capture_sizes and captured else "eager"


def engine_shapes(
    engine: ServedEngine, capture_sizes: Sequence[int] | None = None
) -> dict[str, Any]:
    """The keys of a shapes file for ``engine``.

    Args:
        engine: what vLLM says that it will serve.
        capture_sizes: of those that it captures, in tokens; None for all.
    """
    mode = tuned_mode(engine)
    data: dict[str, Any] = {
        "model": asdict(engine.model),
        "kv_cache_dtype": engine.kv_cache_dtype,
        "engine": {"modes": [mode], "max_model_len": engine.max_model_len},
    }
    if engine.block_size is not None:
        data["engine"]["block_size"] = engine.block_size
    if engine.quantization in QUANTIZATIONS:
        data["quantization"] = engine.quantization
    if engine.index_topk is not None:
        data["index_topk"] = engine.index_topk
    if engine.backend in BACKENDS:
        data["backends"] = [engine.backend]
    if mode == "graph":
        data["graph"] = _graph(engine, capture_sizes or engine.capture_sizes)
    else:
        data["batch_specs"] = [str(shape) for shape in eager_shapes(engine)]
    return data


def _graph(engine: ServedEngine, capture_sizes: Sequence[int]) -> dict[str, Any]:
    data: dict[str, Any] = {
        "capture_sizes": list(capture_sizes),
        "max_num_seqs": engine.max_num_seqs,
        "draft_tokens": engine.draft_tokens,
        "kv_lens": _kv_lens(engine),
    }
    if engine.kv_cache_tokens is not None:
        data["kv_cache_tokens"] = engine.kv_cache_tokens
    return data


def _kv_lens(engine: ServedEngine) -> dict[int, int]:
    least, most = engine.query_len, engine.max_model_len
    return {n: weight for n, weight in KV_LENS.items() if least <= n <= most} or {most: 1}


def eager_shapes(engine: ServedEngine) -> list[BatchShape]:
    """Few single-token decodes, far apart, from which a table's model answers for those between."""
    longest = min(engine.max_model_len, LONGEST_EAGER)
    most = engine.kv_cache_tokens or MOST_EAGER_TOKENS
    batches = _steps(1, engine.max_num_seqs)
    lengths = _steps(min(256, longest), longest)
    places = [(n, kv_len) for n, kv_len in product(batches, lengths) if n * kv_len <= most]
    chosen = spread(places, EAGER_POINTS) if len(places) > EAGER_POINTS else places
    return [BatchShape.of([RequestGroup(1, kv_len, n)]) for n, kv_len in sorted(set(chosen))]


def _steps(first: int, last: int) -> list[int]:
    """Both ends and the powers of two between them."""
    powers = (1 << octave for octave in range(last.bit_length()))
    return sorted({first, last, *(value for value in powers if first < value < last)})


def shapes_text(engine: ServedEngine, command: str) -> str:
    """A shapes file for ``engine``, with remarks on what stands behind it."""
    text = yaml.safe_dump(
        engine_shapes(engine), sort_keys=False, default_flow_style=None, width=100
    )
    return "\n".join([*(f"# {remark}" for remark in _remarks(engine, command)), text])


def _remarks(engine: ServedEngine, command: str) -> list[str]:
    lengths = ", ".join(map(str, _kv_lens(engine)))
    found = [f"What vLLM {engine.vllm} would serve with: {printable(command)}"]
    if engine.device.compute_capability is None:
        found.append("No GPU was there to ask: sizes are those of compute capability 9.0.")
    if engine.backend is None:
        found.append("Which backend vLLM chooses, only a GPU tells: name one with --backend.")
    elif engine.backend not in BACKENDS:
        found.append(f"It serves with {engine.backend}, which cannot be tuned.")
    if engine.context_parallel > 1:
        told = f"{engine.context_parallel} GPUs share the KV cache of a request"
        found.append(f"{told}: heads are theirs together, lengths are of one.")
    if engine.quantization not in QUANTIZATIONS:
        found.append(f"Its weights are {engine.quantization}: no eager table can match.")
    if tuned_mode(engine) == "graph":
        found.append(f"KV lengths of {lengths} are an assumption: put your traffic's in.")
    return found
