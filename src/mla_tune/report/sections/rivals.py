"""Backends beside each other, each with its table in use."""

__all__ = ["rivals"]

from collections.abc import Sequence
from typing import Any

from mla_tune.catalogue.contest import Contest, contests
from mla_tune.catalogue.points import Point
from mla_tune.report.axes import factor_axis, interval, row_layout
from mla_tune.report.figure import Facets, Figure, Numbers, Section
from mla_tune.report.material import Material, of_table
from mla_tune.report.names import distinct_names
from mla_tune.report.theme import SERIES, SYMBOLS

COLUMNS = ("batch", "fastest", "backend", "µs with its table", "times the fastest's (95 %)")


def rivals(material: Material) -> Section:
    """A plot for each ground on which two or more tables have batches in common."""
    compared = [contest for contest in contests(material.tables) if contest.points]
    return Section(
        "backends",
        "Backends beside each other",
        "How many times as long as the fastest backend each of them takes, with its table in use: "
        "1 is the fastest. Bars are 95 % intervals of the noise in both comparisons with the "
        "default; between processes there is more.",
        [_figure(contest) for contest in compared],
        "tables of two backends for the same GPU, model, KV cache and mode",
    )


def _figure(contest: Contest) -> Figure:
    tables = [contender.table for contender in contest.contenders]
    names = distinct_names(tables, [contender.backend for contender in contest.contenders])
    points = [point for point in contest.points if point.fastest is not None]
    places = range(len(contest.contenders))
    wins = [sum(point.fastest == place for point in points) for place in places]
    told = ", ".join(
        f"{name} is the fastest at {count}" for name, count in zip(names, wins, strict=True)
    )
    behind = [point.behind(place) for point in points for place in point.served]
    farthest = max(1.5, *(ratio.high or ratio.value for ratio in behind))
    ticks = (1, 1.5, 2, 3, 5, 10, 20)
    layout = row_layout(
        len(points),
        factor_axis("times as long as the fastest", ticks, (0.95, 1.05 * farthest)),
        has_legend=True,
    )
    layout["yaxis"] |= {
        "categoryorder": "array",
        "categoryarray": [point.shape for point in reversed(points)],
    }
    rows = [(point, place) for point in points for place in sorted(point.served)]
    return Figure(
        str(contest.ground),
        f"Of {len(points)} batches {told}.",
        Numbers(
            COLUMNS,
            [_row(names, point, place) for point, place in rows],
            [_of(contest, place) for _, place in rows],
        ),
        {},
        [_trace(contest, names, points, place) for place in places],
        layout,
    )


def _of(contest: Contest, place: int) -> Facets:
    return of_table(contest.contenders[place].table)


def _trace(
    contest: Contest, names: Sequence[str], points: list[Point], place: int
) -> dict[str, Any]:
    shown = [point for point in points if place in point.served]
    ratios = [point.behind(place) for point in shown]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": names[place],
        "x": [ratio.value for ratio in ratios],
        "y": [point.shape for point in shown],
        "error_x": interval(
            [ratio.value for ratio in ratios],
            [ratio.low or ratio.value for ratio in ratios],
            [ratio.high or ratio.value for ratio in ratios],
        ),
        "marker": {
            "size": 9,
            "symbol": SYMBOLS[place % len(SYMBOLS)],
            "color": SERIES[place % len(SERIES)],
        },
        "hoverinfo": "text",
        "hovertext": [": ".join(_row(names, point, place)[::2]) for point in shown],
        "meta": _of(contest, place),
    }


def _row(names: Sequence[str], point: Point, place: int) -> tuple[str, ...]:
    ratio = point.behind(place)
    interval = "" if ratio.low is None else f" ({ratio.low:.2f}–{ratio.high:.2f})"
    return (
        point.shape,
        names[point.fastest or 0],
        names[place],
        f"{point.served[place]:.1f}",
        f"{ratio.value:.2f}×{interval}",
    )
