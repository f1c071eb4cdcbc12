"""What `bench_engine.py` measures of its engines: decodes, extends, outputs and memory."""

import argparse
import itertools
import statistics
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from engine_cells import DEFAULT, PLUGIN, Cells, is_open, taking_turns, where
from measured_engine import MOST_GROWTH, Settings
from served_engine import ServedEngine

Engines = dict[str, ServedEngine]

MOST_BLOCK = 128
"""Tokens of a block of the KV cache, at most: each request's last one may be all but empty."""


def decode_cells(engines: Engines, arguments: argparse.Namespace, done: Cells) -> Iterable[Any]:
    for context in arguments.contexts:
        cases = [{"batch": batch, "context": context} for batch in arguments.batches]
        yield from _cells(engines, arguments, done, "decode", cases, steps=arguments.steps)


def extend_cells(engines: Engines, arguments: argparse.Namespace, done: Cells) -> Iterable[Any]:
    for context in arguments.extend_contexts:
        cases = [
            {"batch": batch, "context": context, "new_tokens": new_tokens}
            for new_tokens, batch in itertools.product(arguments.extends, arguments.extend_batches)
        ]
        yield from _cells(engines, arguments, done, "extend", cases)


def _cells(
    engines: Engines,
    arguments: argparse.Namespace,
    done: Cells,
    what: str,
    cases: list[dict[str, int]],
    **more: int,
) -> Iterable[Any]:
    """Measure those of ``cases``, all of one context, that are still open."""
    cases = [case for case in cases if is_open(done, case, arguments.floor)]
    room = min(engine.facts["kv_cache_tokens"] for engine in engines.values())
    for case in [case for case in cases if _tokens_of(case) > room]:
        print(f"{what} {where(case)}: left out, the KV cache holds {room} tokens", flush=True)
        cases.remove(case)
    if cases:
        _fill(engines, max(case["batch"] for case in cases), cases[0]["context"])
    for case in cases:
        yield case | taking_turns(
            list(engines.values()),
            arguments.cell_seconds,
            lambda engine, c=case: engine.ask(what, **c, **more),  # type: ignore[misc]
        )


def _tokens_of(case: dict[str, int]) -> int:
    """Tokens in the KV cache of a cell, with what its requests grow by."""
    grown = round(case["context"] * (1 + MOST_GROWTH)) + case.get("new_tokens", 0)
    return case["batch"] * (grown + MOST_BLOCK)


def _fill(engines: Engines, batch: int, context: int) -> None:
    for engine in engines.values():
        engine.send("fill", batch=batch, context=context)
    for engine in engines.values():
        engine.answer()


def logprob_cells(engines: Engines, arguments: argparse.Namespace, done: Cells) -> Iterable[Any]:
    """Compare the plugin's engine with the default, and the default with itself.

    The default computes every prompt a second time as one prefill: other kernels, other orders
    of reduction, and as right as the first. Twice the distance of these two is the tolerance.
    Over half the context the logits have to be much further away, or they say nothing.
    """
    default, plugin = engines[DEFAULT], engines[PLUGIN]
    near_1k = min(arguments.contexts, key=lambda size: abs(size - 1024))
    points = [(near_1k, 1), *itertools.product(arguments.extend_contexts, arguments.extends)]
    for context, new_tokens in points:
        for batch in (8, 32):
            case = {"batch": batch, "context": context, "new_tokens": new_tokens}
            if not is_open(done, case, arguments.floor):
                continue
            own = default.ask("logprobs", cached=True, **case)
            other_way = _distance(own, default.ask("logprobs", cached=False, **case))
            tuned = _distance(own, plugin.ask("logprobs", cached=True, **case))
            half = case | {"context": context // 2}
            control = _distance(own, default.ask("logprobs", cached=True, **half))
            yield {
                **case,
                "plugin": tuned,
                "one_prefill": other_way,
                "half_context": control,
                "agrees": tuned <= 2 * other_way < control / 4,
            }


def _distance(one: Iterable[list[float]], other: Iterable[list[float]]) -> float:
    """The largest difference of two logprobs, in standard deviations of a request's logprobs."""
    return max(
        max(abs(x - y) for x, y in zip(a, b, strict=True)) / statistics.pstdev(a)
        for a, b in zip(one, other, strict=True)
    )


def memory(engines: dict[str, dict[str, float]]) -> dict[str, float]:
    """What the plugin leaves free beside KV caches of equal size."""
    beside = {name: facts["used_gib"] - facts["kv_cache_gib"] for name, facts in engines.items()}
    return {
        "beside_kv_cache_default_gib": beside[DEFAULT],
        "beside_kv_cache_plugin_gib": beside[PLUGIN],
        "given_back_gib": beside[DEFAULT] - beside[PLUGIN],
    }


def kv_run(settings: Settings, result: dict[str, Any]) -> dict[str, float]:
    """Start the plugin's engine with as much more for the KV cache as it has given back.

    vLLM up to 0.32 reserves TRITON_MLA's workspace after it has sized the KV cache, so the
    utilization has to say so.
    """
    default = result["engines"][DEFAULT]
    more = result["memory"]["given_back_gib"] / default["total_gib"]
    if more < 0.001:
        return {"kv_cache_gained_gib": 0.0}
    utilization = round(settings.utilization + more, 4)
    with ServedEngine(PLUGIN, replace(settings, utilization=utilization)) as engine:
        engine.start()
        return {
            "utilization_for_the_same_total": utilization,
            "kv_cache_gained_gib": engine.facts["kv_cache_gib"] - default["kv_cache_gib"],
            "used_gib_default": default["used_gib"],
            "used_gib_plugin": engine.facts["used_gib"],
        }
