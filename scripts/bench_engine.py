r"""A whole vLLM engine by default against the same engine with the plugin, side by side.

Three engines of DeepSeek-V2 shape, or V3.2's for a sparse backend (dummy weights, no experts),
stay alive on one GPU: the default,
its twin, and one with the plugin. They take turns within every round of every cell, so that none
has a warmer or a quieter machine; a speed-up is the median of the paired ratios with its 95 %
interval, and the ratio of the twins, measured alike, says what the difference of two processes is
worth. Measured are decode steps, extends of cached prefixes, a trace of requests, the memory that
is left for the KV cache, and the logprobs of the same prompts.

    python scripts/bench_engine.py --tables out/tables --backend TRITON_MLA --out engine.json
    python scripts/bench_engine.py --tables out/tables --backend FLASHMLA --extends 256,512
    python scripts/bench_engine.py --tables out/tables --batches "" --trace trace.csv
    python scripts/bench_engine.py --tables out/tables --backend FLASHMLA_SPARSE \
        --kv-cache-dtype fp8 --no-twin --no-kv-run --max-model-len 16k --batches 8 --contexts 1k \
        --extends 64 --extend-batches 8 --extend-contexts 960
    python scripts/bench_engine.py --tables out/tables --backend FLASH_ATTN_MLA --no-twin \
        --batches 48,80,96,112 --contexts 1k,4k,12k,16k,32k --steps 16 --utilization 0.45

--other-tables adds an engine with the plugin and these tables, for what one set of tables gains
over another.

Every context of a decode cell is computed by the engine once, for the most requests that it is
measured with. Shorter ones and smaller batches are its cached prefixes; each request has a text of
its own, so that no two read the same KV cache. Requests stay for several samples, until they have
grown by a sixteenth. ``--no-twin`` leaves the GPU's memory to two engines.

Every start of an engine is a little faster or slower than the next. Run again with the same --out,
the script starts new engines for the cells that are missing or undecided and joins their rounds.

Exits 1 where a cell or a percentile of the trace is slower than --floor, or a logprob differs.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine_cells import ENGINES, OTHER, PLUGIN, TWIN, join, told, where
from engine_model import write_model
from engine_parts import decode_cells, extend_cells, kv_run, logprob_cells, memory
from engine_report import report
from engine_trace import arrivals, compared, served
from measured_engine import Settings
from mla_tune.errors import InputError
from mla_tune.files.atomic_write import write_atomically
from mla_tune.registry import BACKENDS
from mla_tune.shapes import parse_size
from mla_tune.traffic.trace import load_trace
from needs import need
from served_engine import ServedEngine


def main() -> int:
    arguments = _arguments()
    requests = _requests(arguments)
    folder = Path(tempfile.mkdtemp(prefix="mla-tune-engine-"))
    backend = BACKENDS[arguments.backend]
    write_model(folder, arguments.heads, arguments.max_model_len, sparse=backend.sparse)
    settings = Settings(
        model=folder,
        backend=backend.name,
        kv_cache_dtype=arguments.kv_cache_dtype,
        max_model_len=arguments.max_model_len,
        max_num_seqs=arguments.max_num_seqs,
        utilization=arguments.utilization,
    )
    result = _earlier(arguments)
    asked = {TWIN: arguments.twin, OTHER: arguments.other_tables}
    names = [name for name in ENGINES if asked.get(name, True)]
    first = result["starts"] % len(names)
    result["starts"] += 1
    with ExitStack() as stack:
        engines = _started(stack, names[first:] + names[:first], settings, arguments)
        _measure(engines, arguments, result)
        if requests:
            result["trace"] = compared(served(engines, requests, arguments))
        result["plugin"] = engines[PLUGIN].ask("counts")
        result["log"] = engines[PLUGIN].said()
    if arguments.kv_run:
        result["memory"] |= kv_run(replace(settings, tables=arguments.tables), result)
    _write(result, arguments.out)
    return report(result, arguments.floor)


def _started(
    stack: ExitStack, order: Sequence[str], settings: Settings, arguments: argparse.Namespace
) -> dict[str, ServedEngine]:
    """The engines, started in ``order``; ``stack`` stops them."""
    # The first start compiles, and an engine that has compiled is not the one that loads it.
    first = ["warm-up"] if arguments.warm_up else []
    tables = {PLUGIN: arguments.tables, OTHER: arguments.other_tables}
    # All import before the first one starts.
    engines = {
        name: stack.enter_context(ServedEngine(name, replace(settings, tables=tables.get(name))))
        for name in (*first, *order)
    }
    for name in first:
        engines[name].start()
        engines.pop(name).stop()
    for engine in engines.values():
        engine.start()
    return engines


def _measure(
    engines: dict[str, ServedEngine], arguments: argparse.Namespace, result: dict[str, Any]
) -> None:
    """Measure what is missing or undecided in ``result``, and write it after every cell."""
    result["engines"] = {name: engine.facts for name, engine in engines.items()}
    result["memory"] |= memory(result["engines"])
    for part, measured in (
        ("logprobs", logprob_cells),
        ("decode", decode_cells),
        ("extend", extend_cells),
    ):
        for cell in measured(engines, arguments, result[part]):
            print(f"{part} {where(cell)}: {told(cell)}", flush=True)
            join(result[part], cell)
            _write(result, arguments.out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", required=True, help="what MLA_TUNE_TABLES is set to")
    parser.add_argument("--other-tables", help="the same of one more engine")
    parser.add_argument("--backend", default="TRITON_MLA")
    parser.add_argument("--kv-cache-dtype", default="auto", help="vLLM's name")
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--max-model-len", type=parse_size, default=131072)
    parser.add_argument(
        "--batches",
        type=_sizes,
        default=_sizes("1,8,32,128"),
        help="requests; a plan acts in a captured size that the graph table has an entry for",
    )
    parser.add_argument("--contexts", type=_sizes, default=_sizes("512,1k,4k,16k"))
    parser.add_argument("--steps", type=int, default=48, help="decode steps a sample")
    parser.add_argument("--extends", type=_sizes, default=[], help="new tokens, such as 256,512")
    parser.add_argument("--extend-batches", type=_sizes, default=_sizes("8,32"))
    parser.add_argument("--extend-contexts", type=_sizes, default=_sizes("1k,8k"))
    parser.add_argument("--cell-seconds", type=float, default=20.0, help="for one cell's rounds")
    parser.add_argument("--floor", type=float, default=0.99, help="speed-up that no cell is below")
    parser.add_argument("--utilization", type=float, default=0.25, help="of each engine")
    parser.add_argument("--max-num-seqs", type=int, default=1024, help="vLLM's own on an H200")
    parser.add_argument("--trace", type=Path, help="requests as a CSV file in Azure's format")
    parser.add_argument("--trace-steps", type=int, default=6000, help="steps of the trace")
    parser.add_argument("--segment-steps", type=int, default=300, help="steps of a turn")
    parser.add_argument(
        "--trace-step-ms",
        type=float,
        default=30.0,
        help="milliseconds of the trace a step: the more, the more requests meet",
    )
    parser.add_argument("--no-twin", dest="twin", action="store_false", help="two engines alone")
    parser.add_argument(
        "--no-warm-up",
        dest="warm_up",
        action="store_false",
        help="an earlier run on this machine has compiled the same engine",
    )
    parser.add_argument("--no-kv-run", dest="kv_run", action="store_false")
    parser.add_argument("--out", type=Path, help="written after every cell")
    return parser.parse_args()


def _requests(arguments: argparse.Namespace) -> list[tuple[int, int, int]]:
    """The requests of --trace; read before the first engine starts."""
    if arguments.trace is None:
        return []
    try:
        return arrivals(load_trace(arguments.trace), arguments)
    except InputError as error:
        raise SystemExit(str(error)) from None


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
    fixed = ("backend", "heads", "tables", "other_tables", "max_model_len", "max_num_seqs", "steps")
    for name in (*fixed, "kv_cache_dtype"):
        earlier = found["arguments"].get(name, "auto" if name == "kv_cache_dtype" else "None")
        if earlier != told[name]:
            raise SystemExit(
                f"{arguments.out} was measured with --{name.replace('_', '-')} "
                f"{earlier}, not {told[name]}: choose another --out"
            )
    return fresh | found | {"arguments": told}


def _write(result: dict[str, Any], out: Path | None) -> None:
    if out is not None:
        write_atomically(out, json.dumps(result, indent=1))


if __name__ == "__main__":
    need("vllm", gpu=True)
    sys.exit(main())
