"""What `bench_engine.py` prints at its end, and the exit code that goes with it."""

from typing import Any

from engine_cells import DEFAULT, PLUGIN, Cells, is_undecided, pooled, told, where
from engine_trace import lines
from engine_trace import slower as slower_percentiles


def report(result: dict[str, Any], floor: float) -> int:
    """Print all figures; 1 where a cell or a percentile of the trace is slower than ``floor``.

    Or where logprobs differ.
    """
    facts = result["engines"][DEFAULT]
    print(f"\nvLLM {facts['vllm']} on {facts['gpu']}, {result['arguments']['backend']}")
    for cell in result["decode"]:
        rates = (f"{cell['batch'] / cell[f'{name}_ms'] * 1e3:.0f}" for name in (DEFAULT, PLUGIN))
        print(f"decode {where(cell)}: {' -> '.join(rates)} tokens/s")
    for part in ("decode", "extend"):
        if result[part]:
            print(f"{part}, all rounds of all cells: {told(pooled(result[part]))}")
    behind = []
    if trace := result.get("trace"):
        print(*lines(trace), sep="\n")
        behind = slower_percentiles(trace, floor)
    print(", ".join(f"{name} {value:.3f}" for name, value in result["memory"].items()))
    print(*result["plugin"], sep="\n")
    cells = [*result["decode"], *result["extend"]]
    slower = [cell for cell in cells if cell["speedup"]["high"] < floor]
    open_ = [cell for cell in cells if is_undecided(cell, floor)]
    differ = [cell for cell in result["logprobs"] if not cell["agrees"]]
    print(
        f"{len(cells)} cells: {len(cells) - len(slower) - len(open_)} at least {floor}x, "
        f"{len(open_)} undecided{_list(open_)}, {len(slower)} slower{_list(slower)}; "
        f"{len(differ)} of {len(result['logprobs'])} logprobs differ"
    )
    for what in behind:
        print(f"SLOWER than {floor}x: {what}")
    return int(bool(slower or differ or behind))


def _list(cells: Cells) -> str:
    return f" ({'; '.join(map(where, cells))})" if cells else ""
