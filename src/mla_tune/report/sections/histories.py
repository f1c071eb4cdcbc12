"""How entries went, night by night."""

__all__ = ["histories"]

import math
from collections.abc import Sequence
from typing import Any

from mla_tune.catalogue.found import FoundTable
from mla_tune.nightly.history import History
from mla_tune.nightly.trend import Trend, trends
from mla_tune.report.figure import Figure, Numbers, Section
from mla_tune.report.material import Material, of_table, title_of
from mla_tune.report.sections.cells import plan_text
from mla_tune.report.theme import SERIES, SYMBOLS

MOST_LINES = 6
COLUMNS = ("batch", "card", "nights", "usual µs", "± scatter", "speed-up (95 %)", "changes")


def histories(material: Material) -> Section:
    """A plot for each history, of the entries that changed most."""
    figures = [
        _figure(table, found)
        for table, history in material.histories
        if (found := _by_change(history))
    ]
    return Section(
        "nights",
        "Night by night",
        "Latency over that of the first night: the entries that moved most. A ring is the first "
        "night of a change beyond the scatter of those before.",
        figures,
        "a history beside a table: mla-tune retune writes it",
    )


def _by_change(history: History) -> list[Trend]:
    return sorted(trends(history.readings), key=_moved, reverse=True)


def _moved(trend: Trend) -> float:
    return max((abs(math.log(change.factor)) for change in trend.changes), default=0.0)


def _figure(table: FoundTable, found: Sequence[Trend]) -> Figure:
    shown = found[:MOST_LINES]
    changed = sum(bool(trend.changes) for trend in found)
    return Figure(
        f"{len(shown)} of {len(found)} entries: {title_of(table)}",
        f"{len(found)} entries over nights; {changed} of them changed beyond their scatter.",
        Numbers(COLUMNS, [_row(trend) for trend in found]),
        of_table(table),
        [trace for number, trend in enumerate(shown) for trace in _traces(trend, number)],
        {
            "height": 380,
            "xaxis": {"type": "date"},
            "yaxis": {"title": {"text": "times the first night's"}},
        },
    )


def _traces(trend: Trend, number: int) -> list[dict[str, Any]]:
    first_us = trend.readings[0].latency_us
    colour = SERIES[number % len(SERIES)]
    firsts = [change.first for change in trend.changes]
    return [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": f"{trend.shape} on {trend.card}",
            "x": [reading.at.isoformat() for reading in trend.readings],
            "y": [reading.latency_us / first_us for reading in trend.readings],
            "line": {"color": colour, "width": 2},
            "marker": {"symbol": SYMBOLS[number % len(SYMBOLS)], "size": 6},
            "hoverinfo": "text",
            "hovertext": [
                f"{reading.day} {trend.shape}: {reading.latency_us:.1f} µs, "
                f"{plan_text(reading.plan)}"
                for reading in trend.readings
            ],
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": [reading.at.isoformat() for reading in firsts],
            "y": [reading.latency_us / first_us for reading in firsts],
            "marker": {"symbol": "circle-open", "size": 16, "color": colour, "line": {"width": 2}},
            "hoverinfo": "skip",
            "showlegend": False,
        },
    ]


def _row(trend: Trend) -> tuple[str, ...]:
    changes = (
        "; ".join(filter(None, (f"{change.first.day} {change.factor:.2f}×", *change.differences)))
        for change in trend.changes
    )
    return (
        trend.shape,
        trend.card,
        str(len(trend.readings)),
        f"{trend.usual_us:.1f}",
        f"{100 * trend.scatter:.2f} %",
        str(trend.last.speedup or "–"),
        " | ".join(changes),
    )
