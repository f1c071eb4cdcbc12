"""A trace of requests through the engines of `bench_engine.py`, in turns of some hundred steps.

Arrivals are counted in steps, not in seconds: every engine then runs the same batches, so that
step times can be compared percentile by percentile. An engine that is faster would meet fewer
requests a step in reality; what it gains in waiting is not counted here.

A percentile's ratio has a 95 % interval by a bootstrap of the segments, in which the engines took
turns.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from engine_cells import DEFAULT, PLUGIN, TWIN, Asked
from mla_tune.traffic.trace import TracedRequest
from stepped_requests import Step

PERCENTILES = (10, 50, 90, 99)
RESAMPLES = 999

Segments = Sequence[Sequence[Step]]
Bounds = dict[str, float]


class Turns(Protocol):
    """Of the script's arguments, those that say how the trace is served."""

    trace_steps: int
    segment_steps: int
    trace_step_ms: float
    max_model_len: int


def arrivals(trace: Sequence[TracedRequest], turns: Turns) -> list[tuple[int, int, int]]:
    """At which step each request comes, its context, and what it generates.

    Requests that are longer than the engine admits, or come after the last step, are left out.
    """
    found = []
    for request in trace:
        step = int(request.arrival_s * 1e3 / turns.trace_step_ms)
        generated = max(1, request.generated)
        if step < turns.trace_steps and request.context + generated <= turns.max_model_len:
            found.append((step, request.context, generated))
    return found


def served(
    engines: Mapping[str, Asked], requests: list[tuple[int, int, int]], turns: Turns
) -> dict[str, list[list[Step]]]:
    """The steps of every engine by segment; each segment begins with another engine."""
    for engine in engines.values():
        engine.ask("begin_trace", requests=requests)
    names = list(engines)
    segments: dict[str, list[list[Step]]] = {name: [] for name in names}
    for turn in range(-(-turns.trace_steps // turns.segment_steps)):
        first = turn % len(names)
        for name in (*names[first:], *names[:first]):
            segments[name].append(engines[name].ask("trace_steps", count=turns.segment_steps))
    return segments


def compared(segments: Mapping[str, Segments]) -> dict[str, Any]:
    """The plugin's engine against the default on the steps that were alike in all engines.

    Step times are in milliseconds. A speed-up is the default's percentile over the plugin's.
    """
    alike, share = _alike(segments)
    result: dict[str, Any] = {
        "steps": sum(map(len, alike[PLUGIN])),
        "alike": share,
        "requests": _spread([step.requests for part in alike[PLUGIN] for step in part]),
        "segments": segments,
    }
    for kind, kept in (("decode", _decodes(alike)), ("all", alike)):
        result[kind] = {
            "steps": sum(map(len, kept[PLUGIN])),
            "tokens_per_s": {name: _tokens_per_s(parts) for name, parts in kept.items()},
            "percentiles": list(_percentiles(kept)),
        }
    return result


def _alike(segments: Mapping[str, Segments]) -> tuple[dict[str, list[list[Step]]], float]:
    """The steps that held the same requests and tokens in every engine, and their share."""
    kept: dict[str, list[list[Step]]] = {name: [] for name in segments}
    total = 0
    for parts in zip(*segments.values(), strict=True):
        together = [
            steps
            for steps in zip(*parts, strict=False)
            if len({(step.requests, step.tokens, step.decodes) for step in steps}) == 1
        ]
        total += max(map(len, parts))
        for name, steps in zip(segments, zip(*together, strict=True), strict=False):
            kept[name].append(list(steps))
    if not kept[PLUGIN]:
        raise SystemExit("no step of the trace was alike in all engines")
    return kept, sum(map(len, kept[PLUGIN])) / total


def _decodes(segments: Mapping[str, Segments]) -> dict[str, list[list[Step]]]:
    kept = {
        name: [[step for step in part if step.is_decode] for part in parts]
        for name, parts in segments.items()
    }
    return {name: [part for part in parts if part] for name, parts in kept.items()}


def _tokens_per_s(parts: Segments) -> float:
    """Decoded tokens a second of steps."""
    steps = [step for part in parts for step in part]
    total_ms = sum(step.ms for step in steps)
    return 1e3 * sum(step.decodes for step in steps) / total_ms if steps else 0.0


def _spread(values: Sequence[float]) -> Bounds:
    return {f"p{each}": float(np.percentile(values, each)) for each in PERCENTILES}


def _percentiles(segments: Mapping[str, Segments]) -> Iterator[dict[str, Any]]:
    """Each percentile of the engines, and the ratios of them with their intervals."""
    parts = {
        name: [np.array([step.ms for step in part]) for part in each]
        for name, each in segments.items()
    }
    count = len(parts[PLUGIN])
    if not count:
        return
    draw = np.random.default_rng(0)
    draws = [np.arange(count), *draw.integers(count, size=(RESAMPLES, count))]
    found = {
        name: np.array(
            [np.percentile(np.concatenate([of[i] for i in drawn]), PERCENTILES) for drawn in draws]
        )
        for name, of in parts.items()
    }
    for place, percentile in enumerate(PERCENTILES):
        ms = {name: values[:, place] for name, values in found.items()}
        row: dict[str, Any] = {
            "percentile": percentile,
            "ms": {name: float(values[0]) for name, values in ms.items()},
            "speedup": _interval(ms[DEFAULT] / ms[PLUGIN]),
        }
        if TWIN in ms:
            row["twins"] = _interval(ms[DEFAULT] / ms[TWIN])
        yield row


def _interval(ratios: "np.ndarray[Any, np.dtype[np.float64]]") -> Bounds:
    low, high = np.percentile(ratios[1:], (2.5, 97.5))
    return {"median": float(ratios[0]), "low": float(low), "high": float(high)}


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The figures of a trace, as they are printed."""
    spread = ", ".join(f"{name} {value:.0f}" for name, value in result["requests"].items())
    yield f"trace: {result['steps']} steps, {result['alike']:.1%} alike; requests {spread}"
    for kind in ("decode", "all"):
        part = result[kind]
        rates = part["tokens_per_s"]
        yield (
            f"trace, {kind} steps ({part['steps']}): {rates[DEFAULT]:.0f} -> {rates[PLUGIN]:.0f} "
            f"tokens/s, {rates[PLUGIN] / rates[DEFAULT]:.3f}x"
        )
        for row in part["percentiles"]:
            yield f"trace, {kind} steps, p{row['percentile']}: {_row(row)}"


def _row(row: Mapping[str, Any]) -> str:
    told = f"{row['ms'][DEFAULT]:.3f} -> {row['ms'][PLUGIN]:.3f} ms"
    for name in ("speedup", "twins"):
        if name in row:
            ratio = row[name]
            told += f", {name} {ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"
    return told


def slower(result: Mapping[str, Any], floor: float) -> list[str]:
    """The percentiles whose speed-up is below ``floor`` with its whole interval."""
    return [
        f"trace, {kind} steps, p{row['percentile']}"
        for kind in ("decode", "all")
        for row in result[kind]["percentiles"]
        if row["speedup"]["high"] < floor
    ]
