"""How many times as fast as the default: heat maps of decodes, and the rest in rows."""

__all__ = ["gains"]

import math
from collections.abc import Iterator, Sequence
from typing import Any

from mla_tune.catalogue.found import FoundTable
from mla_tune.report.axes import ROW, factor_axis, interval, row_layout
from mla_tune.report.figure import Figure, Numbers, Section
from mla_tune.report.material import Material, of_table, title_of
from mla_tune.report.sections.cells import Cell, Kind, cells_of, placed_cells, plan_text
from mla_tune.table import Entry, Speedup

FARTHEST = 4.0
"""The factor at which colours end, on either side, on all heat maps alike."""
TICKS = (0.5, 0.8, 1, 1.2, 1.5, 2, 3, 5, 10)
SAME = Speedup(median=1.0, low=1.0, high=1.0)
COLUMNS = ("batch", "plan", "default µs", "plan µs", "speed-up (95 %)", "is")


def gains(material: Material) -> Section:
    """A heat map of single-token decodes a table, and a plot of its other batches."""
    tuned = [table for table in material.tables if any(_compared(table))]
    figures = [figure for table in tuned for figure in _of_table(table)]
    untuned = [table for table in material.tables if table not in tuned]
    figures += [_all_default(untuned)] if untuned else []
    return Section(
        "gains",
        "Speed-up over the default",
        "Blue is faster than vLLM's default, orange slower; colours end at ¼× and 4×. An = is an "
        "entry that keeps the default, a ? one whose default could not be measured. Bars and the "
        "numbers have the 95 % interval.",
        figures,
        "a table with entries",
    )


def _compared(table: FoundTable) -> Iterator[Entry]:
    return (entry for entry in table.file.entries if entry.speedup and entry.plan)


def _all_default(tables: Sequence[FoundTable]) -> Figure:
    rows = [(title_of(table), str(len(table.file.entries))) for table in tables]
    return Figure(
        "Tables that keep the default everywhere",
        "No plan was proven to be faster for any of their entries.",
        Numbers(("table", "entries"), rows, [of_table(table) for table in tables]),
        {},
    )


def _of_table(table: FoundTable) -> Iterator[Figure]:
    cells = [cell for entry in table.file.entries for cell in cells_of(entry)]
    kinds = {kind: [cell for cell in cells if cell.kind == kind] for kind in Kind}
    if kinds[Kind.DECODE]:
        yield _heat_map(table, "Decodes", kinds[Kind.DECODE])
    if kinds[Kind.RAGGED]:
        yield _heat_map(table, "Ragged decodes, by mean KV length", kinds[Kind.RAGGED])
    if kinds[Kind.LONGER]:
        yield _rows(table, kinds[Kind.LONGER])


def _heat_map(table: FoundTable, title: str, cells: Sequence[Cell]) -> Figure:
    placed = placed_cells(cells)
    batches = sorted({batch for batch, _ in placed})
    columns = sorted({column for _, column in placed})
    grid = [[placed.get((batch, column)) for column in columns] for batch in batches]
    values = [[_log_gain(cell) for cell in row] for row in grid]
    seen = [cell.speedup.median for cell in cells if cell.speedup]
    trace = {
        "type": "heatmap",
        "x": [name for _, name in columns],
        "y": [str(batch) for batch in batches],
        "z": values,
        "text": [[_in_cell(cell) for cell in row] for row in grid],
        "hovertext": [[_hover(cell) for cell in row] for row in grid],
        "texttemplate": "%{text}",
        "textfont": {"size": 11},
        "hoverinfo": "text",
        "coloraxis": "coloraxis",
        "xgap": 1,
        "ygap": 1,
    }
    return Figure(
        f"{title}: {title_of(table)}",
        f"{len(batches)} batch sizes by {len(columns)} KV lengths; speed-ups from "
        f"{min(seen, default=1):.2f} to {max(seen, default=1):.2f}.",
        _numbers(cells),
        of_table(table),
        [trace],
        _heat_layout(len(batches)),
    )


def _heat_layout(num_rows: int) -> dict[str, Any]:
    end = math.log2(FARTHEST)
    ticks = (0.25, 0.5, 1, 2, 4)
    return {
        "height": 60 + max(66, ROW * num_rows),
        "margin": {"t": 46},
        "xaxis": {"type": "category", "title": {"text": "KV length"}, "showgrid": False,
                  "tickangle": 0, "side": "top"},
        "yaxis": {"type": "category", "title": {"text": "requests"}, "showgrid": False,
                  "dtick": 1},
        "coloraxis": {
            "cmin": -end,
            "cmax": end,
            "colorscale": "@diverging",
            "colorbar": {"tickvals": [math.log2(tick) for tick in ticks], "thickness": 8,
                         "ticktext": ["¼×", "½×", "1", "2×", "4×"], "outlinewidth": 0,
                         "len": 0.9, "xpad": 4},
        },
    }  # fmt: skip


def _log_gain(cell: Cell | None) -> float | None:
    if cell is None:
        return None
    if cell.keeps_default:
        return 0.0
    return math.log2(cell.speedup.median) if cell.speedup and cell.speedup.median > 0 else None


def _in_cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if cell.keeps_default:
        return "="
    # The page leaves the interval out where cells are narrow.
    return str(cell.speedup).replace("×", "") if cell.speedup else "?"


def _hover(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return f"{cell.name}: {cell.told_gain}, {plan_text(cell.entry.plan or cell.entry.unproven)}"


def _rows(table: FoundTable, cells: Sequence[Cell]) -> Figure:
    """A row for each batch of several query tokens, or of several query lengths."""
    shown = [cell for cell in cells if _log_gain(cell) is not None]
    shown.reverse()  # Plotly draws the first category at the bottom
    gains = [cell.speedup or SAME for cell in shown]
    medians = [gain.median for gain in gains]
    span = (
        0.97 * min(0.95, *(gain.low for gain in gains)),
        1.03 * max(1.5, *(gain.high for gain in gains)),
    )
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": medians,
        "y": [cell.name for cell in shown],
        # Plotly would take the marks' colours, of which there are several.
        "error_x": interval(medians, [g.low for g in gains], [g.high for g in gains])
        | {"color": "@soft"},
        "marker": {
            "size": 9,
            "symbol": ["circle-open" if cell.keeps_default else "circle" for cell in shown],
            "color": [_colour(cell) for cell in shown],
        },
        "hoverinfo": "text",
        "hovertext": [_hover(cell) for cell in shown],
    }  # fmt: skip
    return Figure(
        f"Longer queries and mixed batches: {title_of(table)}",
        f"Speed-ups of {len(shown)} batches, from {min(medians, default=1):.2f} to "
        f"{max(medians, default=1):.2f}; open circles keep the default.",
        _numbers(cells),
        of_table(table),
        [trace] if shown else [],
        row_layout(len(shown), factor_axis("times as fast as the default", TICKS, span)),
    )


def _colour(cell: Cell) -> str:
    if cell.speedup is None or cell.keeps_default:
        return "@default"
    if cell.speedup.high < 1:
        return "@slower"
    return "@winner" if cell.speedup.low > 1 else "@default"


def _numbers(cells: Sequence[Cell]) -> Numbers:
    return Numbers(COLUMNS, [_row(cell) for cell in cells])


def _row(cell: Cell) -> tuple[str, ...]:
    entry = cell.entry
    plan = plan_text(entry.plan) if entry.unproven is None else f"unproven: {entry.unproven}"
    times = (cell.default_us, cell.latency_us)
    return (
        cell.name,
        plan,
        *("" if us is None else f"{us:.1f}" for us in times),
        cell.told_gain,
        "guard" if cell.is_guard else "listed",
    )
