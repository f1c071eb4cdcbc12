"""Latency against the number of splits, from plans that were tried."""

__all__ = ["split_counts"]

import math
from collections.abc import Iterator, Sequence
from typing import Any

from mla_tune.plan.plan import Plan
from mla_tune.report.axes import interval, microseconds_axis
from mla_tune.report.figure import Figure, Numbers, Section
from mla_tune.report.material import Material
from mla_tune.report.sections.cells import plan_text
from mla_tune.report.theme import SERIES, SYMBOLS
from mla_tune.report.tried import Tried

KNOB = "num_kv_splits"
MOST_LINES = 6
"""More lines cannot be told apart; the heat map beside them has all batches."""
COLUMNS = ("batch", "plan", "µs (95 %)", "times the fastest's", "is")


def split_counts(material: Material) -> Section:
    """A heat map of all batches and lines of some, for each set of tried plans."""
    groups: dict[tuple[str, ...], list[Tried]] = {}
    for tried in material.tried:
        if len(_by_splits(tried)) > 1:
            groups.setdefault(tried.setting.key, []).append(tried)
    return Section(
        "splits",
        "Latency against splits",
        "○ is the default, ★ the plan that is fastest over the batch's whole workload. Other knobs "
        "are as by default. Bars are 95 % intervals of the median.",
        [figure for group in groups.values() for figure in _figures(group)],
        "--study-dir DIR, the journals of a run, or --recording FILE",
    )


def _by_splits(tried: Tried) -> dict[int, Plan]:
    """The plans that differ from the default in their splits alone, by these, ascending."""
    others = tried.default.without(KNOB)
    found = {plan.number(KNOB): plan for plan in tried.latencies if plan.without(KNOB) == others}
    return {value: plan for value, plan in sorted(found.items(), key=str) if value is not None}


def _figures(group: Sequence[Tried]) -> Iterator[Figure]:
    # A recording that goes on with a workload, or a study, may have a batch twice.
    group = sorted({str(tried.shape): tried for tried in group}.values(), key=_order)
    values = sorted({value for tried in group for value in _by_splits(tried)})
    title = group[0].setting.title
    yield _lines(title, group, values)
    yield _heat_map(title, group, values)


def _order(tried: Tried) -> tuple[int, int, int]:
    return tried.shape.max_query_len, tried.shape.num_requests, tried.shape.max_kv_len


def _numbers(group: Sequence[Tried]) -> Numbers:
    return Numbers(COLUMNS, [row for tried in group for row in _rows(tried)])


def _lines(title: str, group: Sequence[Tried], values: Sequence[int]) -> Figure:
    count = min(MOST_LINES, len(group))
    places = [round(place * (len(group) - 1) / max(count - 1, 1)) for place in range(count)]
    shown = [group[place] for place in places]
    return Figure(
        f"{len(shown)} of {len(group)} batches: {title}",
        f"Latency over the number of splits, from {values[0]} to {values[-1]}, of "
        f"{', '.join(str(tried.shape) for tried in shown)}.",
        _numbers(shown),
        group[0].setting.of,
        [trace for number, tried in enumerate(shown) for trace in _line(tried, number, values)],
        {
            "height": 400,
            "xaxis": {"type": "category", "title": {"text": f"{KNOB} (0: no cap)"},
                      "categoryorder": "array", "categoryarray": list(map(str, values))},
            "yaxis": microseconds_axis(),
        },
    )  # fmt: skip


def _line(tried: Tried, number: int, values: Sequence[int]) -> Iterator[dict[str, Any]]:
    plans = _by_splits(tried)
    found = [(value, tried.latencies[plans[value]]) for value in values if value in plans]
    colour = SERIES[number % len(SERIES)]
    yield {
        "type": "scatter",
        "mode": "lines+markers",
        "name": str(tried.shape),
        "x": [str(value) for value, _ in found],
        "y": [latency.median for _, latency in found],
        "error_y": interval(
            [latency.median for _, latency in found],
            [latency.low for _, latency in found],
            [latency.high for _, latency in found],
        ),
        "line": {"color": colour, "width": 2},
        "marker": {"symbol": SYMBOLS[number % len(SYMBOLS)], "size": 5},
        "hoverinfo": "text",
        "hovertext": [f"{tried.shape}, {value} splits: {latency} µs" for value, latency in found],
    }
    for symbol, size, edge, plan in (
        ("circle-open", 15, colour, tried.default),
        ("star", 14, "@ground", tried.winner),
    ):
        value = plan.number(KNOB)
        if value is None or plans.get(value) != plan:
            continue
        yield {
            "type": "scatter",
            "mode": "markers",
            "x": [str(value)],
            "y": [tried.latencies[plan].median],
            "marker": {
                "symbol": symbol,
                "size": size,
                "color": colour,
                "line": {"width": 1.5, "color": edge},
            },
            "hoverinfo": "skip",
            "showlegend": False,
        }


def _heat_map(title: str, group: Sequence[Tried], values: Sequence[int]) -> Figure:
    rows = [_behind(tried, values) for tried in group]
    trace = {
        "type": "heatmap",
        "x": [str(value) for value in values],
        "y": [str(tried.shape) for tried in group],
        "z": [[None if cell is None else math.log2(cell) for cell in row] for row in rows],
        "text": [[_mark(tried, value) for value in values] for tried in group],
        "hovertext": [
            [
                "" if cell is None else f"{tried.shape}, {value} splits: {cell:.2f}×"
                for value, cell in zip(values, row, strict=True)
            ]
            for tried, row in zip(group, rows, strict=True)
        ],
        "texttemplate": "%{text}",
        "hoverinfo": "text",
        "coloraxis": "coloraxis",
        "xgap": 1,
        "ygap": 1,
    }
    return Figure(
        f"All {len(group)} batches, times the fastest's: {title}",
        "How many times as long as with the fastest number of splits a batch takes; darker or "
        "brighter is slower, the default has a circle and the winner a star.",
        _numbers(group),
        group[0].setting.of,
        [trace],
        {
            "height": 60 + max(66, 18 * len(group)),
            "margin": {"t": 46},
            "xaxis": {"type": "category", "title": {"text": KNOB}, "showgrid": False,
                      "side": "top", "tickangle": 0},
            "yaxis": {"type": "category", "dtick": 1, "showgrid": False, "tickfont": {"size": 10}},
            "coloraxis": {
                "cmin": 0,
                "cmax": 3,
                "colorscale": "@sequential",
                "colorbar": {"tickvals": [0, 1, 2, 3], "ticktext": ["1", "2×", "4×", "8×"],
                             "thickness": 8, "outlinewidth": 0, "len": 0.9, "xpad": 4},
            },
        },
    )  # fmt: skip


def _behind(tried: Tried, values: Sequence[int]) -> list[float | None]:
    plans = _by_splits(tried)
    fastest = min(tried.latencies[plan].median for plan in plans.values())
    return [
        tried.latencies[plans[value]].median / fastest if value in plans else None
        for value in values
    ]


def _mark(tried: Tried, value: int) -> str:
    plan = _by_splits(tried).get(value)
    marks = (("○", tried.default), ("★", tried.winner))
    return "".join(mark for mark, marked in marks if plan is not None and plan == marked)


def _rows(tried: Tried) -> Iterator[tuple[str, ...]]:
    plans = set(_by_splits(tried).values()) | {tried.default, tried.winner}
    known = {plan: latency for plan, latency in tried.latencies.items() if plan in plans}
    fastest = min(latency.median for latency in known.values())
    for plan, latency in known.items():
        named = ("default", tried.default), ("winner", tried.winner)
        marks = ", ".join(word for word, marked in named if marked == plan)
        ratio = f"{latency.median / fastest:.2f}×"
        yield str(tried.shape), plan_text(plan), str(latency), ratio, marks
