"""A cell of `bench_engine.py`: what engines that take turns say of one batch.

The engines are the default, one with the plugin, and where asked for the default's twin, and one
with the plugin and other tables. A speed-up is the median of the paired ratios with its 95 %
interval; the ratio of the twins, measured alike, says what the difference of two processes is
worth.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from mla_tune.shapes import format_size
from mla_tune.table import Speedup
from mla_tune.tuning.decide import NARROW
from mla_tune.tuning.speedups import speedup_of

DEFAULT, TWIN, PLUGIN, OTHER = "default", "twin", "plugin", "other"
ENGINES = (DEFAULT, PLUGIN, TWIN, OTHER)
MIN_ROUNDS, MAX_ROUNDS = 6, 150


class Asked(Protocol):
    """What a cell needs of an engine."""

    name: str

    def ask(self, what: str, **arguments: Any) -> Any: ...


Cells = list[dict[str, Any]]


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
    plain = [name for name in (DEFAULT, TWIN) if name in samples]
    logs = {name: np.log(samples[name]) for name in samples}
    default = np.mean([logs[name] for name in plain], axis=0)
    cell = {
        f"{DEFAULT}_ms": statistics.median([ms for name in plain for ms in samples[name]]),
        f"{PLUGIN}_ms": statistics.median(samples[PLUGIN]),
        "rounds": len(samples[PLUGIN]),
        "speedup": speedup_of(default - logs[PLUGIN]).model_dump(),
        "samples_ms": samples,
    }
    if TWIN in samples:
        cell["twins"] = speedup_of(logs[DEFAULT] - logs[TWIN]).model_dump()
    if OTHER in samples:
        cell[f"{OTHER}_ms"] = statistics.median(samples[OTHER])
        cell["other_speedup"] = speedup_of(default - logs[OTHER]).model_dump()
        cell["over_other"] = speedup_of(logs[OTHER] - logs[PLUGIN]).model_dump()
    return cell


def pooled(cells: Cells) -> dict[str, Any]:
    """All rounds of several cells together, by their ratios; of the engines that all have."""
    samples = [cell["samples_ms"] for cell in cells]
    names = [name for name in ENGINES if all(name in each for each in samples)]
    return paired({name: [ms for each in samples for ms in each[name]] for name in names})


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
    return "speedup" in earlier and is_undecided(earlier, floor)


def _find(cells: Cells, case: dict[str, Any]) -> dict[str, Any] | None:
    return next((cell for cell in cells if where(cell) == where(case)), None)


def is_undecided(cell: dict[str, Any], floor: float) -> bool:
    return bool(cell["speedup"]["low"] < floor <= cell["speedup"]["high"])


def _is_known(cell: dict[str, Any]) -> bool:
    speedup = Speedup(**cell["speedup"])
    return speedup.half_width <= NARROW * speedup.median or speedup.low > 1.1


def where(cell: dict[str, Any]) -> str:
    new = f" x {cell['new_tokens']} on" if "new_tokens" in cell else " x"
    return f"{cell['batch']}{new} {format_size(cell['context'])}"


def told(cell: dict[str, Any]) -> str:
    if "agrees" in cell:
        return (
            f"plugin {cell['plugin']:.4f}, default as one prefill {cell['one_prefill']:.4f}, "
            f"over half the context {cell['half_context']:.4f} standard deviations: "
            f"{'agree' if cell['agrees'] else 'DIFFER'}"
        )
    speedup = cell["speedup"]
    line = (
        f"{cell['default_ms']:.3f} -> {cell['plugin_ms']:.3f} ms, "
        f"{speedup['median']:.3f}x [{speedup['low']:.3f}, {speedup['high']:.3f}], "
    )
    for name, label in (("twins", "twins"), ("over_other", "over the other tables")):
        if ratio := cell.get(name):
            line += f"{label} {ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}], "
    return f"{line}{cell['rounds']} rounds"
