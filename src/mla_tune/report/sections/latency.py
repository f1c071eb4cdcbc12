"""What a layer takes by default and with the table, over the batch size."""

__all__ = ["latency"]

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mla_tune.catalogue.found import FoundTable
from mla_tune.report.axes import microseconds_axis, requests_axis
from mla_tune.report.figure import Figure, Numbers, Section
from mla_tune.report.material import Material, of_table, title_of
from mla_tune.report.sections.cells import plan_text
from mla_tune.report.theme import SERIES, SYMBOLS
from mla_tune.shapes import Workload, format_size
from mla_tune.table import Entry

COLUMNS = ("batch", "default µs", "plan µs", "speed-up (95 %)", "plan", "ties")


def latency(material: Material) -> Section:
    """Two lines for each KV length, or for the mean over those of an entry."""
    return Section(
        "latency",
        "Latency, by default and tuned",
        "Time of a whole layer. Dashed with open marks is the default, solid the published plan; "
        "where a line is alone, the default stays. The plan's bar is the 95 % interval of its "
        "speed-up, laid at the default's median.",
        [figure for table in material.tables for figure in _of_table(table)],
        "a table of single-token decodes",
    )


def _of_table(table: FoundTable) -> Iterator[Figure]:
    lines: dict[str, list[tuple[int, Entry]]] = {}
    for entry in table.file.entries:
        shapes = Workload.parse(entry.shape).shapes
        if any(len(shape.groups) > 1 for shape in shapes) or shapes[0].max_query_len > 1:
            continue
        name = ",".join(format_size(shape.max_kv_len) for shape in shapes)
        lines.setdefault(name, []).append((shapes[0].num_requests, entry))
    for points in lines.values():
        points.sort(key=lambda point: point[0])
    if not lines:
        return
    entries = [entry for points in lines.values() for _, entry in points]
    yield Figure(
        title_of(table),
        f"Latency over the batch size, by default and tuned, for KV lengths {'; '.join(lines)}: "
        f"from {min(e.latency_us for e in entries):.0f} to "
        f"{max(e.default_us or e.latency_us for e in entries):.0f} microseconds.",
        Numbers(COLUMNS, [_row(entry) for entry in entries]),
        of_table(table),
        list(_traces(lines)),
        {"height": 380, "xaxis": requests_axis(), "yaxis": microseconds_axis()},
    )


def _traces(lines: Mapping[str, Sequence[tuple[int, Entry]]]) -> Iterator[dict[str, Any]]:
    for number, (name, points) in enumerate(lines.items()):
        colour, symbol = SERIES[number % len(SERIES)], SYMBOLS[number % len(SYMBOLS)]
        length = f"KV {name}" if "," not in name else f"mean over KV {name}"
        known = [(batch, entry) for batch, entry in points if entry.default_us is not None]
        yield {
            "type": "scatter",
            "mode": "lines+markers",
            "name": f"{length}, default",
            "x": [batch for batch, _ in known],
            "y": [entry.default_us for _, entry in known],
            "line": {"color": colour, "dash": "dot", "width": 1.5},
            "marker": {"symbol": f"{symbol}-open", "size": 8},
            "hoverinfo": "text",
            "hovertext": [
                f"{entry.shape}: default {entry.default_us:.1f} µs" for _, entry in known
            ],
        }
        yield {
            "type": "scatter",
            "mode": "lines+markers",
            "name": f"{length}, tuned",
            "x": [batch for batch, _ in points],
            "y": [entry.latency_us for _, entry in points],
            "error_y": _bars([entry for _, entry in points]),
            "line": {"color": colour, "width": 2},
            "marker": {"symbol": symbol, "size": 6},
            "hoverinfo": "text",
            "hovertext": [_hover(entry) for _, entry in points],
        }


def _bars(entries: Sequence[Entry]) -> dict[str, Any]:
    over, under = [], []
    for entry in entries:
        gain = entry.speedup
        known = gain is not None and gain.low > 0
        over.append(entry.latency_us * (gain.median / gain.low - 1) if gain and known else 0)
        under.append(entry.latency_us * (1 - gain.median / gain.high) if gain and known else 0)
    return {"type": "data", "symmetric": False, "array": over, "arrayminus": under, "thickness": 1}


def _hover(entry: Entry) -> str:
    return f"{entry.shape}: {entry.latency_us:.1f} µs, {plan_text(entry.plan)}"


def _row(entry: Entry) -> tuple[str, ...]:
    return (
        entry.shape,
        "not measured" if entry.default_us is None else f"{entry.default_us:.1f}",
        f"{entry.latency_us:.1f}",
        str(entry.speedup) if entry.speedup and entry.plan else "–",
        plan_text(entry.plan) if entry.unproven is None else f"unproven: {entry.unproven}",
        "; ".join(map(plan_text, entry.ties)),
    )
