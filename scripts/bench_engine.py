"""A whole vLLM engine by default against the same engine with the plugin, side by side.

Three engines of DeepSeek-V2 shape (dense layers, dummy weights) stay alive on one GPU: the default,
its twin, and one with the plugin. They take turns within every round of every cell, so that none
has a warmer or a quieter machine; a speed-up is the median of the paired ratios with its 95 %
interval, and the ratio of the twins, measured alike, says what the difference of two processes is
worth. Measured are decode steps, extends of cached prefixes, the memory that is left for the KV
cache, and the logprobs of the same prompts.

    python scripts/bench_engine.py --tables out/tables --backend TRITON_MLA --out engine.json
    python scripts/bench_engine.py --tables out/tables --backend FLASHMLA --extends 256,512

Every start of an engine is a little faster or slower than the next. Run again with the same --out,
the script starts new engines for the cells that are missing or undecided and joins their rounds.

Exits 1 where a cell is slower than --floor or a logprob differs.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from engine_model import write_model
from engine_process import Settings
from mla_tune.shapes import format_size, parse_size
from mla_tune.tuning.decide import NARROW, Interval
from served_engine import ServedEngine

DEFAULT, TWIN, PLUGIN = "default", "twin", "plugin"
ENGINES = (DEFAULT, PLUGIN, TWIN)
MIN_ROUNDS, MAX_ROUNDS = 6, 150


class Asked(Protocol):
    """What a cell needs of an engine."""

    name: str

    def ask(self, what: str, **arguments: Any) -> Any: ...


Engines = dict[str, ServedEngine]
Cells = list[dict[str, Any]]


def main() -> int:
    arguments = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="mla-tune-engine-"))
    write_model(folder, arguments.heads, arguments.max_model_len)
    settings = Settings(
        model=folder,
        backend=arguments.backend,
        max_model_len=arguments.max_model_len,
        max_num_seqs=arguments.max_num_seqs,
        utilization=arguments.utilization,
    )
    result = _earlier(arguments)
    order = ENGINES[result["starts"] % 3 :] + ENGINES[: result["starts"] % 3]
    result["starts"] += 1
    with ExitStack() as stack:
        # The first start compiles, and an engine that has compiled is not the one that loads it.
        warm_up = stack.enter_context(ServedEngine("warm-up", settings))
        engines = {
            name: stack.enter_context(
                ServedEngine(
                    name, replace(settings, tables=arguments.tables if name == PLUGIN else None)
                )
            )
            for name in order
        }
        warm_up.start()
        warm_up.stop()
        for engine in engines.values():
            engine.start()
        result["engines"] = {name: engine.facts for name, engine in engines.items()}
        result["memory"] |= _memory(result["engines"])
        for part, measured in (
            ("logprobs", _logprob_cells),
            ("decode", _decode_cells),
            ("extend", _extend_cells),
        ):
            for cell in measured(engines, arguments, result[part]):
                print(f"{part} {_where(cell)}: {_told(cell)}", flush=True)
                join(result[part], cell)
                _write(result, arguments.out)
        result["plugin"] = engines[PLUGIN].ask("counts")
        result["log"] = engines[PLUGIN].said()
    if arguments.kv_run:
        result["memory"] |= _kv_run(replace(settings, tables=arguments.tables), result)
    _write(result, arguments.out)
    return _report(result, arguments.floor)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", required=True, help="what MLA_TUNE_TABLES is set to")
    parser.add_argument("--backend", default="TRITON_MLA")
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--max-model-len", type=parse_size, default=131072)
    parser.add_argument("--batches", type=_sizes, default=_sizes("1,8,32,128"))
    parser.add_argument("--contexts", type=_sizes, default=_sizes("512,1k,4k,16k"))
    parser.add_argument("--steps", type=int, default=48, help="decode steps a sample")
    parser.add_argument("--extends", type=_sizes, default=[], help="new tokens, such as 256,512")
    parser.add_argument("--extend-batches", type=_sizes, default=_sizes("8,32"))
    parser.add_argument("--extend-contexts", type=_sizes, default=_sizes("1k,8k"))
    parser.add_argument("--cell-seconds", type=float, default=20.0, help="for one cell's rounds")
    parser.add_argument("--floor", type=float, default=0.99, help="speed-up that no cell is below")
    parser.add_argument("--utilization", type=float, default=0.25, help="of each engine")
    parser.add_argument("--max-num-seqs", type=int, default=1024, help="vLLM's own on an H200")
    parser.add_argument("--no-kv-run", dest="kv_run", action="store_false")
    parser.add_argument("--out", type=Path, help="written after every cell")
    return parser.parse_args()


def _sizes(text: str) -> list[int]:
    return [parse_size(part) for part in text.split(",") if part]


def _earlier(arguments: argparse.Namespace) -> dict[str, Any]:
    """What an earlier run with the same --out has measured."""
    told = {name: str(value) for name, value in vars(arguments).items()}
    fresh: dict[str, Any] = {
        "arguments": told,
        "starts": 0,
        "memory": {},
        "logprobs": [],
        "decode": [],
        "extend": [],
    }
    if arguments.out is None or not arguments.out.exists():
        return fresh
    found: dict[str, Any] = json.loads(arguments.out.read_text(encoding="utf-8"))
    for name in ("backend", "heads", "tables", "max_model_len", "max_num_seqs", "steps"):
        if found["arguments"][name] != told[name]:
            raise SystemExit(
                f"{arguments.out} was measured with --{name.replace('_', '-')} "
                f"{found['arguments'][name]}, not {told[name]}: choose another --out"
            )
    return fresh | found | {"arguments": told}


def _write(result: dict[str, Any], out: Path | None) -> None:
    if out is not None:
        beside = out.with_name(f"{out.name}.tmp")
        beside.write_text(json.dumps(result, indent=1), encoding="utf-8")
        beside.replace(out)


# Speed


def taking_turns(
    engines: Sequence[Asked], seconds: float, measure: Callable[[Asked], float]
) -> dict[str, Any]:
    """Rounds of all engines, each in another order, until the speed-up is known or time is up."""
    samples: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for engine in engines:
        measure(engine)  # compiles what is not compiled yet
    end = time.monotonic() + seconds
    for turn in range(MAX_ROUNDS):
        first = turn % len(engines)
        for engine in (*engines[first:], *engines[:first]):
            samples[engine.name].append(measure(engine))
        cell = paired(samples)
        if turn + 1 >= MIN_ROUNDS and (_is_known(cell) or time.monotonic() > end):
            break
    return cell


def paired(samples: dict[str, list[float]]) -> dict[str, Any]:
    """Speed-up over the default and its twin, round by round, and the twins' own ratio."""
    default, plugin, twin = (np.log(samples[name]) for name in ENGINES)
    return {
        f"{DEFAULT}_ms": statistics.median([*samples[DEFAULT], *samples[TWIN]]),
        f"{PLUGIN}_ms": statistics.median(samples[PLUGIN]),
        "rounds": len(plugin),
        "speedup": vars(Interval.of((default + twin) / 2 - plugin)),
        "twins": vars(Interval.of(default - twin)),
        "samples_ms": samples,
    }


def pooled(cells: Cells) -> dict[str, Any]:
    """All rounds of several cells together, by their ratios."""
    return paired(
        {name: [ms for cell in cells for ms in cell["samples_ms"][name]] for name in ENGINES}
    )


def join(cells: Cells, cell: dict[str, Any]) -> None:
    """Add ``cell`` to ``cells``, with the rounds of earlier engines if there are any."""
    earlier = _find(cells, cell)
    if earlier is None:
        cells.append(cell)
    else:
        earlier |= pooled([earlier, cell])


def is_open(cells: Cells, case: dict[str, int], floor: float) -> bool:
    """Whether ``case`` is missing from ``cells``, or its interval holds ``floor``."""
    earlier = _find(cells, case)
    if earlier is None:
        return True
    return "speedup" in earlier and _is_undecided(earlier, floor)


def _find(cells: Cells, case: dict[str, Any]) -> dict[str, Any] | None:
    return next((cell for cell in cells if _where(cell) == _where(case)), None)


def _is_undecided(cell: dict[str, Any], floor: float) -> bool:
    return bool(cell["speedup"]["low"] < floor <= cell["speedup"]["high"])


def _is_known(cell: dict[str, Any]) -> bool:
    speedup = Interval(**cell["speedup"])
    return speedup.half_width <= NARROW * speedup.median or speedup.low > 1.1


def _decode_cells(engines: Engines, arguments: argparse.Namespace, done: Cells) -> Iterable[Any]:
    for context in arguments.contexts:
        cases = [{"batch": batch, "context": context} for batch in arguments.batches]
        yield from _cells(engines, arguments, done, "decode", cases, steps=arguments.steps)


def _extend_cells(engines: Engines, arguments: argparse.Namespace, done: Cells) -> Iterable[Any]:
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
    if cases:
        _fill(engines, max(case["batch"] for case in cases), cases[0]["context"])
    for case in cases:
        yield case | taking_turns(
            list(engines.values()),
            arguments.cell_seconds,
            lambda engine, c=case: engine.ask(what, **c, **more),  # type: ignore[misc]
        )


def _fill(engines: Engines, batch: int, context: int) -> None:
    for engine in engines.values():
        engine.send("fill", batch=batch, context=context)
    for engine in engines.values():
        engine.answer()


# Outputs


def _logprob_cells(engines: Engines, arguments: argparse.Namespace, done: Cells) -> Iterable[Any]:
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


# Memory


def _memory(engines: dict[str, dict[str, float]]) -> dict[str, float]:
    """What the plugin leaves free beside KV caches of equal size."""
    beside = {name: facts["used_gib"] - facts["kv_cache_gib"] for name, facts in engines.items()}
    return {
        "beside_kv_cache_default_gib": beside[DEFAULT],
        "beside_kv_cache_plugin_gib": beside[PLUGIN],
        "given_back_gib": beside[DEFAULT] - beside[PLUGIN],
    }


def _kv_run(settings: Settings, result: dict[str, Any]) -> dict[str, float]:
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


# Telling


def _where(cell: dict[str, Any]) -> str:
    new = f" x {cell['new_tokens']} on" if "new_tokens" in cell else " x"
    return f"{cell['batch']}{new} {format_size(cell['context'])}"


def _told(cell: dict[str, Any]) -> str:
    if "agrees" in cell:
        return (
            f"plugin {cell['plugin']:.4f}, default as one prefill {cell['one_prefill']:.4f}, "
            f"over half the context {cell['half_context']:.4f} standard deviations: "
            f"{'agree' if cell['agrees'] else 'DIFFER'}"
        )
    speedup, twins = cell["speedup"], cell["twins"]
    return (
        f"{cell['default_ms']:.3f} -> {cell['plugin_ms']:.3f} ms, "
        f"{speedup['median']:.3f}x [{speedup['low']:.3f}, {speedup['high']:.3f}], "
        f"twins {twins['median']:.3f} [{twins['low']:.3f}, {twins['high']:.3f}], "
        f"{cell['rounds']} rounds"
    )


def _report(result: dict[str, Any], floor: float) -> int:
    facts = result["engines"][DEFAULT]
    print(f"\nvLLM {facts['vllm']} on {facts['gpu']}, {result['arguments']['backend']}")
    for cell in result["decode"]:
        told = (f"{cell['batch'] / cell[f'{name}_ms'] * 1e3:.0f}" for name in (DEFAULT, PLUGIN))
        print(f"decode {_where(cell)}: {' -> '.join(told)} tokens/s")
    for part in ("decode", "extend"):
        if result[part]:
            print(f"{part}, all rounds of all cells: {_told(pooled(result[part]))}")
    print(", ".join(f"{name} {value:.3f}" for name, value in result["memory"].items()))
    print(*result["plugin"], sep="\n")
    cells = [*result["decode"], *result["extend"]]
    slower = [cell for cell in cells if cell["speedup"]["high"] < floor]
    open_ = [cell for cell in cells if _is_undecided(cell, floor)]
    differ = [cell for cell in result["logprobs"] if not cell["agrees"]]
    print(
        f"{len(cells)} cells: {len(cells) - len(slower) - len(open_)} at least {floor}x, "
        f"{len(open_)} undecided{_list(open_)}, {len(slower)} slower{_list(slower)}; "
        f"{len(differ)} of {len(result['logprobs'])} logprobs differ"
    )
    return int(bool(slower or differ))


def _list(cells: Cells) -> str:
    return f" ({'; '.join(map(_where, cells))})" if cells else ""


if __name__ == "__main__":
    sys.exit(main())
