"""From what an engine has served to a shapes file of what to tune next."""

__all__ = ["shapes_from_traffic", "shown", "tuned_lengths", "weight_text"]

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mla_tune.quantization import QUANTIZATIONS
from mla_tune.shapes import BatchShape, RequestGroup
from mla_tune.shapes.buckets import power_near
from mla_tune.shapes.ragged import RaggedSpec
from mla_tune.table import Table
from mla_tune.table.loading import LoadedTable
from mla_tune.traffic.histogram import StepKind
from mla_tune.traffic.merged import MergedTraffic
from mla_tune.traffic.ragged_steps import ragged_lines, ragged_of

# More shapes than this are noise at the end of a long tail, and a night is only so long.
MOST_SHAPES = 200

# Query lengths up to this are those of decodes with draft tokens, and stay as they are.
LONGEST_DECODE = 16

# Whether a table answers a shape of a kind of step.
Answers = Callable[[StepKind, BatchShape], bool]


def shapes_from_traffic(path: Path, tables: Iterable[Path] = ()) -> str:
    """Write a weighted shapes file of what an engine with ``MLA_TUNE_RECORD=path`` has served.

    KV lengths, and query lengths above 16, are rounded to a power of two. A graph table is keyed
    by the captured size, so a replayed step counts for that size: half at the mean and half at
    the longest of its requests' KV lengths, since a split count has to serve the work of the one
    and the tail of the other. The ragged steps of a size become ragged batches of it besides, see
    `mla_tune.traffic.ragged_steps`. An eager table is looked up by the longest.

    Args:
        path: the value of the variable; the files of all its processes are merged.
        tables: tables to look the shapes up in. Without any, the hits and misses of the engine's
            own tables count.

    Returns:
        The text of the shapes file. Shapes that no table answers come first. Last come those that
        no entry could answer: eager steps in which one request was far above the mean. Within each
        part the most served come first; weights are steps.

    Raises:
        InputError: as `MergedTraffic.load`, or a table cannot be read.
    """
    traffic = MergedTraffic.load(path)
    loaded = [LoadedTable(table, Table.load(table)) for table in tables]
    if not loaded:
        return _text(path, traffic, lambda kind, _shape: kind.outcome == "hit")

    loaded = [each for each in loaded if each.table.header.backend == traffic.engine["backend"]]

    @functools.cache
    def answered(mode: str, shape: BatchShape) -> bool:
        return any(each.table.lookup_shape(shape).is_hit for each in loaded if each.mode == mode)

    def answers(kind: StepKind, shape: BatchShape) -> bool:
        if kind.outcome != "skewed":
            return answered(kind.mode, shape)
        lengths = kind.batch, (kind.kv_len,), (kind.longest_kv_len,)
        found = [each.table.answer_ragged(*lengths) for each in loaded if each.mode == "eager"]
        return any(answer is not None and answer.outcome != "miss" for answer in found)

    return _text(path, traffic, answers)


def _shapes(kind: StepKind, engine: dict[str, Any]) -> Iterator[tuple[BatchShape, float]]:
    """The uniform batches that a kind of step counts for, and the share of each."""
    query_len = kind.query_len if kind.mode == "graph" else _rounded_query(kind.query_len)
    for kv_len, share in tuned_lengths(kind, engine["max_model_len"]).items():
        yield BatchShape.of([RequestGroup(query_len, max(query_len, kv_len), kind.batch)]), share


def tuned_lengths(kind: StepKind, max_model_len: int) -> dict[int, float]:
    """The KV lengths that a kind of step is tuned for, and the share that each counts for.

    Powers of two, unless that is more than the engine admits.
    """
    longest = max(kind.longest_kv_len, kind.kv_len)
    served = (kind.kv_len, longest) if kind.mode == "graph" else (longest,)
    shares: dict[int, float] = {}
    for length in served:
        kv_len = min(power_near(length), max_model_len)
        shares[kv_len] = shares.get(kv_len, 0.0) + 1 / len(served)
    return shares


def _rounded_query(query_len: int) -> int:
    return query_len if query_len <= LONGEST_DECODE else power_near(query_len)


# The parts of a shapes file, in its order.
_PARTS = {
    "missed": "without an entry, most served first; weights are steps",
    "hit": "with an entry, most served first; weights are steps",
    "skewed": "eager steps with one request over 1.5 times the mean, without an answer: no entry "
    "speaks for these, a table's model may",
}


@dataclass
class _Weights:
    """How often a shape was served, in all and by part, and with how many requests."""

    total: float = 0.0
    requests: float = 0.0
    missed: float = 0.0
    skewed: float = 0.0

    @property
    def part(self) -> str:
        if self.skewed == self.total:
            return "skewed"
        return "missed" if self.missed > 0 else "hit"


def _weighed(traffic: MergedTraffic, is_answered: Answers) -> dict[BatchShape, _Weights]:
    weighed: dict[BatchShape, _Weights] = {}
    for kind, count in traffic.steps.items():
        for shape, share in _shapes(kind, traffic.engine):
            weights = weighed.setdefault(shape, _Weights())
            weights.total += count * share
            weights.requests += traffic.requests[kind] * share
            if is_answered(kind, shape):
                continue
            if kind.outcome == "skewed":
                weights.skewed += count * share
            else:
                weights.missed += count * share
    return weighed


def _text(path: Path, traffic: MergedTraffic, is_answered: Answers) -> str:
    engine, weighed = traffic.engine, _weighed(traffic, is_answered)
    parts = list(_PARTS)

    def order(shape: BatchShape) -> tuple[int, float, float, str]:
        weights = weighed[shape]
        return parts.index(weights.part), -weights.missed, -weights.total, str(shape)

    ordered = sorted(weighed, key=order)
    kept = ordered[:MOST_SHAPES]
    served = traffic.steps.total() + traffic.others.total()
    lines = [
        f"# Served by {engine['backend']} of vLLM {engine['vllm']} on {engine['device']}: "
        f"{served} steps, from {shown(path.name)}.",
        *_remarks(traffic),
        yaml.safe_dump(_head(traffic), sort_keys=False, default_flow_style=None).rstrip(),
        "batch_specs:",
    ]
    for part, title in _PARTS.items():
        shapes = [shape for shape in kept if weighed[shape].part == part]
        if shapes:
            lines.append(f"  # {title}")
            lines += [_line(shape, weighed[shape]) for shape in shapes]
    if len(ordered) > len(kept):
        lines.append(f"  # {len(ordered) - len(kept)} rarer shapes are left out")
    lines += ragged_lines(_ragged(traffic, kept))
    return "\n".join(lines) + "\n"


def _ragged(traffic: MergedTraffic, kept: Iterable[BatchShape]) -> list[RaggedSpec]:
    """Of the sizes of ``kept`` shapes; none by means that are too low, which look ragged."""
    if traffic.has_padded_means:
        return []
    sizes = {(shape.num_requests, shape.max_query_len) for shape in kept}
    found = ragged_of(traffic.steps, traffic.engine["max_model_len"])
    return [spec for spec in found if spec.size in sizes]


def _head(traffic: MergedTraffic) -> dict[str, Any]:
    """The keys of the shapes file, without its shapes."""
    engine = traffic.engine
    return {
        "model": engine["model"],
        "kv_cache_dtype": engine["kv_cache_dtype"],
        "engine": {
            "modes": sorted({kind.mode for kind in traffic.steps}, reverse=True),
            "max_model_len": engine["max_model_len"],
            **_given(engine, "block_size", "max_cudagraph_capture_size"),
        },
        **_given(engine, "quantization"),
        "backends": [engine["backend"]],
    }


def _given(engine: dict[str, Any], *names: str) -> dict[str, Any]:
    """Those of the engine's settings that the histogram has and that can be tuned for."""
    found = {name: engine[name] for name in names if engine[name]}
    if found.get("quantization") not in QUANTIZATIONS:
        found.pop("quantization", None)
    return found


def _remarks(traffic: MergedTraffic) -> Iterator[str]:
    weights = traffic.engine["quantization"]
    if weights is not None and weights not in QUANTIZATIONS:
        yield f"# Its weights are {weights}, which cannot be tuned for: no eager table matches."
    if rare := traffic.others.total():
        yield f"# {rare} of these were of rare kinds, which no shape below counts."
    if traffic.has_padded_means:
        yield "# Format 1: rows that pad a graph were counted in the means, which are too low."


def shown(name: str) -> str:
    """A file's name as it is, unless that would end the comment it stands in."""
    return name if name.isprintable() else ascii(name)


def _line(shape: BatchShape, weights: _Weights) -> str:
    line = f"  - {{spec: {shape}, weight: {weight_text(weights.total)}}}"
    filled = weights.requests / weights.total
    # An eager batch is a bucket, whose requests are up to an eighth more.
    return f"{line}  # {filled:.1f} requests a step" if filled < shape.num_requests else line


def weight_text(steps: float) -> str:
    """A number of steps, as the weight of a shape."""
    return str(int(steps)) if steps == int(steps) else f"{steps:.1f}"
