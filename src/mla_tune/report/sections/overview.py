"""What was tuned, where, and what it wins in all."""

__all__ = ["overview"]

from collections.abc import Sequence
from typing import Any

from mla_tune.catalogue.found import FoundTable
from mla_tune.catalogue.summary import Summary
from mla_tune.report.axes import ROW, factor_axis, interval, row_layout
from mla_tune.report.figure import Figure, Numbers, Section
from mla_tune.report.material import Material, of_table
from mla_tune.report.mean_gain import mean_gain
from mla_tune.report.names import distinct_names
from mla_tune.table import Speedup

COLUMNS = (
    "backend", "heads", "mode", "KV dtype", "GPU", "mean gain (95 %)", "tuned", "entries", "vLLM",
    "up to", "other software", "file",
)  # fmt: skip


def overview(material: Material) -> Section:
    """One row a table, and its mean gain."""
    tables = material.tables
    return Section(
        "tuned",
        "What was tuned",
        "A point is a table: the geometric mean of its gains, where an entry that keeps vLLM's "
        "default counts as 1. The bar is the 95 % interval of that mean.",
        [_figure(tables)] if tables else [],
        "a table",
    )


def _figure(tables: Sequence[FoundTable]) -> Figure:
    gains = [mean_gain(table.file.entries) for table in tables]
    shown = [(table, gain) for table, gain in zip(tables, gains, strict=True) if gain is not None]
    # Plotly draws the first category at the bottom.
    tables_shown = [table for table, _ in shown]
    names = distinct_names(tables_shown, list(map(_name, tables_shown)))
    rows = [_trace(name, *row) for name, row in zip(names, shown, strict=True)]
    traces = rows[::-1]
    best = max((gain.median for _, gain in shown), default=1.0)
    return Figure(
        "Mean gain of each table",
        f"Mean gains of {len(shown)} tables, from 1 to {best:.2f} times as fast as the default.",
        Numbers(
            COLUMNS,
            [_row(table, gain) for table, gain in zip(tables, gains, strict=True)],
            [of_table(table) for table in tables],
        ),
        {},
        traces,
        _layout(len(traces), best),
    )


def _layout(num_rows: int, best: float) -> dict[str, Any]:
    ticks = (1, 1.2, 1.5, 2, 3, 4, 6, 8)
    # Room for what is written beside the last mark.
    span = (0.97, max(best, 1.2) * 1.5)
    layout = row_layout(num_rows, factor_axis("times as fast as the default", ticks, span))
    # A filter takes rows away, and their height.
    return layout | {"meta": {"row": ROW}}


def _name(table: FoundTable) -> str:
    of = of_table(table)
    gpu = of["gpu"].removeprefix("NVIDIA ").partition(" ")[0]
    kv = "" if of["kv"] == "auto" else f" {of['kv']}"
    return f"{of['backend']} {of['heads']}{kv} {of['mode']}, {gpu}"


def _trace(name: str, table: FoundTable, gain: Speedup) -> dict[str, Any]:
    of, vllm = of_table(table), table.file.header.software.get("vllm", "")
    colour = "@winner" if gain.low > 1 else "@default"
    return {
        "type": "scatter",
        "mode": "markers+text",
        "x": [gain.median],
        "y": [name],
        "text": [f"  {gain}" if gain.median != 1 else "  default"],
        "textposition": "middle right",
        "cliponaxis": False,
        "error_x": interval([gain.median], [gain.low], [gain.high]),
        "marker": {"size": 10, "color": colour},
        "textfont": {"size": 11, "color": "@soft"},
        "hoverinfo": "text",
        "hovertext": [f"{name}, vLLM {vllm}: {gain}"],
        "meta": of,
    }


def _row(table: FoundTable, gain: Speedup | None) -> tuple[str, ...]:
    header, summary, of = table.file.header, Summary.of(table.file.entries), of_table(table)
    others = (f"{name} {version}" for name, version in header.software.items() if name != "vllm")
    return (
        of["backend"],
        of["heads"],
        of["mode"],
        of["kv"],
        of["gpu"],
        "no default measured" if gain is None else str(gain),
        str(summary.num_plans),
        str(summary.num_entries),
        header.software.get("vllm", "–"),
        f"{header.engine.max_model_len} tokens",
        ", ".join(others),
        table.path.name,
    )
