"""From a trace of requests to a shapes file of what an engine would serve of it."""

__all__ = ["shapes_from_trace"]

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mla_tune.errors import InputError
from mla_tune.shapes import format_size
from mla_tune.shapes.array_lengths import lengths_in
from mla_tune.shapes.lengths import SKEWED_BEYOND
from mla_tune.traffic.batching import SimulatedEngine, decode_steps
from mla_tune.traffic.histogram import StepKind
from mla_tune.traffic.ragged_steps import ragged_lines, ragged_of
from mla_tune.traffic.shapes import shown, tuned_lengths, weight_text
from mla_tune.traffic.step_parts import StepPart, kind_of
from mla_tune.traffic.trace import TracedRequest, load_trace
from mla_tune.vllm.captures import captured_requests, default_capture_sizes
from mla_tune.vllm.compat import NEWEST_RELEASE

GRID_FACTOR = 4
"""Between two KV lengths of an eager grid; latency over KV length is a straight line."""

RARE = 0.001
"""KV lengths of a smaller share of the steps are left out of a graph's."""

CAPABILITY = "9.0"
"""Of the GPU whose captured sizes count: they are the same on most."""

SHORT = 0.01
"""The share of steps whose mean may be below the shortest KV length of an eager grid."""


@dataclass
class _Served:
    """What a simulated engine has served.

    Attributes:
        captured: batch sizes of its graphs, ascending. A larger step replays none.
        steps: by kind, as the recorder counts replays of graphs.
        skewed: steps in which one request is far above the mean.
        most_requests: in a step.
        longest: KV length.
    """

    captured: Sequence[int]
    steps: Counter[StepKind] = field(default_factory=Counter)
    skewed: int = 0
    most_requests: int = 0
    longest: int = 0

    @classmethod
    def by(cls, engine: SimulatedEngine) -> "_Served":
        """Nothing yet, by an engine that captures what vLLM captures by itself."""
        most = engine.max_num_seqs
        sizes = default_capture_sizes(NEWEST_RELEASE, CAPABILITY, max_num_seqs=most)
        return cls(captured_requests(sizes, 1, most))

    @property
    def replayed(self) -> dict[StepKind, int]:
        """The steps that replay a graph."""
        return {kind: n for kind, n in self.steps.items() if kind.batch in self.captured}

    def add(self, kv_lens: Any) -> None:
        """Count one step."""
        lengths = lengths_in(kv_lens)
        at = bisect_left(self.captured, lengths.requests)
        rows = self.captured[at] if at < len(self.captured) else lengths.requests
        part = StepPart(rows, 1, lengths.total, lengths.longest, lengths.requests)
        self.steps[kind_of("graph", "miss", part)] += 1
        self.skewed += lengths.is_skewed
        self.most_requests = max(self.most_requests, lengths.requests)
        self.longest = max(self.longest, lengths.longest)


def shapes_from_trace(path: Path, engine: SimulatedEngine, model: str) -> str:
    """Write a shapes file of the decode steps of an engine that serves the trace in ``path``.

    The engine is the simple one of `mla_tune.traffic.batching`. In graph mode the file names all
    captured sizes; a step counts half at the mean and half at the longest of its KV lengths, and
    the ragged ones of a size become ragged batches of it, as in `shapes_from_traffic`. For eager
    mode it has a grid around what was served, because a table's model answers between measured
    points alone.

    Args:
        path: the trace; see `load_trace`.
        engine: what serves it.
        model: a name for ``model:``; a trace does not say which one was served.

    Raises:
        InputError: as `load_trace` and `decode_steps`, or no request takes a decode step.
    """
    requests = load_trace(path)
    served = _Served.by(engine)
    for kv_lens in decode_steps(requests, engine):
        served.add(kv_lens)
    if not served.steps:
        raise InputError(
            f"no request of the trace {path} takes a decode step",
            valid=f"GeneratedTokens above 1, and no more than {engine.max_model_len} tokens in all",
        )
    data = {
        "model": model,
        "engine": {"modes": ["graph", "eager"], "max_model_len": engine.max_model_len},
        "graph": {
            "capture_sizes": "vllm",
            "max_num_seqs": engine.max_num_seqs,
            "kv_lens": _weighted_lengths(served, engine),
        },
        "grids": [
            {
                "batch_sizes": _powers(1, served.most_requests, 2, engine.max_num_seqs),
                "kv_lens": _grid_lengths(served, engine),
            }
        ],
    }
    text = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=100)
    ragged = ragged_lines(ragged_of(served.replayed, engine.max_model_len))
    lines = [*_remarks(path, requests, served, engine), *text.splitlines(), *ragged]
    return "\n".join(lines) + "\n"


def _weighted_lengths(served: _Served, engine: SimulatedEngine) -> dict[int | str, int | float]:
    weights: dict[int, float] = {}
    for kind, steps in served.steps.items():
        for kv_len, share in tuned_lengths(kind, engine.max_model_len).items():
            weights[kv_len] = weights.get(kv_len, 0.0) + steps * share
    least = RARE * served.steps.total()
    return {
        _yaml_length(kv_len): yaml.safe_load(weight_text(weight))
        for kv_len, weight in sorted(weights.items())
        if weight >= least
    }


def _grid_lengths(served: _Served, engine: SimulatedEngine) -> list[int | str]:
    few, below, first = SHORT * served.steps.total(), 0, 1
    for kind in sorted(served.steps, key=lambda kind: kind.kv_len):
        below += served.steps[kind]
        if below > few:
            first = 1 << (kind.kv_len.bit_length() - 1)
            break
    return [
        _yaml_length(length)
        for length in _powers(first, served.longest, GRID_FACTOR, engine.max_model_len)
    ]


def _yaml_length(tokens: int) -> int | str:
    """4096 as ``4k`` and 512 as itself, without quotes."""
    text = format_size(tokens)
    return text if text.endswith("k") else tokens


def _powers(first: int, last: int, factor: int, most: int) -> list[int]:
    """``first`` and on by ``factor``, up to the first that is not below ``last``."""
    found = [first]
    while found[-1] < last:
        found.append(min(found[-1] * factor, most))
    return found


def _remarks(
    path: Path, requests: list[TracedRequest], served: _Served, engine: SimulatedEngine
) -> Iterator[str]:
    steps = served.steps.total()
    yield (
        f"# Decode steps of {shown(path.name)}: {len(requests)} requests, {steps} steps of "
        f"{engine.step_ms:g} ms"
    )
    yield (
        f"# with at most {engine.max_num_seqs} requests each; {served.skewed / steps:.0%} of the "
        f"steps have one over {SKEWED_BEYOND:g} times the mean."
    )
    yield "# In this model of an engine prefill takes no time, and memory is never short."
    if left_out := sum(not engine.admits(request) for request in requests):
        yield f"# {left_out} requests of more than {engine.max_model_len} tokens are left out."
