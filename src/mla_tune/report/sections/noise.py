"""How far the figures can be trusted: half widths of intervals."""

__all__ = ["noise"]

from collections.abc import Iterator, Sequence
from typing import Any

from mla_tune.catalogue.found import FoundTable
from mla_tune.report.axes import factor_axis, microseconds_axis
from mla_tune.report.figure import Figure, Numbers, Section
from mla_tune.report.material import Material, of_table
from mla_tune.report.names import distinct_names
from mla_tune.report.theme import SERIES, SYMBOLS
from mla_tune.table import Entry

TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 1.5, 2, 5, 10, 20)
COLUMNS = ("table", "batch", "µs", "half of the interval", "processes", "note")


def noise(material: Material) -> Section:
    """A plot for each GPU and mode, with a mark for each compared entry."""
    groups: dict[tuple[str, str], list[FoundTable]] = {}
    for table in material.tables:
        if any(_compared(table)):
            of = of_table(table)
            groups.setdefault((of["gpu"], of["mode"]), []).append(table)
    return Section(
        "noise",
        "Noise",
        "Half of the 95 % interval of each speed-up, in percent, over the plan's latency. Short "
        "batches scatter most. Rounds in which the GPU was throttled are thrown away, and measured "
        "again; where too few were left, the entry's note says so.",
        [_figure(*key, group) for key, group in groups.items()],
        "a table with a plan that was compared with the default",
    )


def _compared(table: FoundTable) -> Iterator[Entry]:
    return (entry for entry in table.file.entries if entry.speedup and entry.speedup.median > 0)


def _figure(gpu: str, mode: str, tables: Sequence[FoundTable]) -> Figure:
    names = distinct_names(tables, list(map(_name, tables)))
    rows = [
        (name, table, entry)
        for name, table in zip(names, tables, strict=True)
        for entry in _compared(table)
    ]
    shares = sorted(_share(entry) for *_, entry in rows)
    return Figure(
        f"{gpu} · {mode}",
        f"{len(rows)} speed-ups; half of them are known to {shares[len(shares) // 2]:.2f} % or "
        f"better, the least to {shares[-1]:.1f} %.",
        Numbers(
            COLUMNS,
            [_row(name, entry) for name, _, entry in rows],
            [of_table(table) for _, table, _ in rows],
        ),
        {},
        [_trace(*both, number) for number, both in enumerate(zip(names, tables, strict=True))],
        {
            "height": 380,
            "xaxis": microseconds_axis(),
            "yaxis": factor_axis("± % of the speed-up", TICKS, (0.8 * shares[0], 1.2 * shares[-1])),
        },
    )


def _share(entry: Entry) -> float:
    assert entry.speedup is not None
    return max(100 * entry.speedup.half_width / entry.speedup.median, 0.01)


def _name(table: FoundTable) -> str:
    of = of_table(table)
    return f"{of['backend']} {of['heads']}" + ("" if of["kv"] == "auto" else f" {of['kv']}")


def _trace(name: str, table: FoundTable, number: int) -> dict[str, Any]:
    entries = list(_compared(table))
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [entry.latency_us for entry in entries],
        "y": [_share(entry) for entry in entries],
        "marker": {
            "color": SERIES[number % len(SERIES)],
            "symbol": SYMBOLS[number % len(SYMBOLS)],
            "size": 8,
            "opacity": 0.85,
        },
        "hoverinfo": "text",
        "hovertext": [f"{name}, {entry.shape}: {entry.speedup}" for entry in entries],
        "meta": of_table(table),
    }


def _row(name: str, entry: Entry) -> tuple[str, ...]:
    processes = "one, rounds alone" if entry.processes is None else str(entry.processes)
    share = f"± {_share(entry):.2f} %"
    return (name, entry.shape, f"{entry.latency_us:.1f}", share, processes, entry.note)
