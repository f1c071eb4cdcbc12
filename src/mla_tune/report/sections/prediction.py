"""A table's model of waves beside what was measured."""

__all__ = ["prediction"]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mla_tune.catalogue.found import FoundTable
from mla_tune.plan.plan import Plan
from mla_tune.report.axes import microseconds_axis
from mla_tune.report.figure import Figure, Numbers, Section
from mla_tune.report.material import Material, of_table, setting_of, title_of
from mla_tune.shapes import BatchShape, Workload
from mla_tune.table.waves import WaveModel

KNOB = "num_kv_splits"
COLUMNS = ("batch", "splits", "predicted µs", "measured µs", "predicted over measured")


@dataclass(frozen=True)
class _Point:
    shape: str
    value: int
    predicted_us: float
    measured_us: float
    is_of_table: bool


def prediction(material: Material) -> Section:
    """A plot for each table with a model."""
    figures = [
        _figure(table, points)
        for table in material.tables
        if table.file.between is not None and (points := list(_points(table, material)))
    ]
    return Section(
        "prediction",
        "The model of waves",
        "Latency that the table's model predicts for single-token decodes, beside the measured "
        "one. On the line they are the same.",
        figures,
        "an eager table with a section 'between'; --recording FILE adds points to it",
    )


def _points(table: FoundTable, material: Material) -> Iterator[_Point]:
    header, between = table.file.header, table.file.between
    assert between is not None
    model = between.model(header.device.sm_count, header.model["num_q_heads"]).model
    for entry in table.file.entries:
        shape = Workload.parse(entry.shape).shapes[0]
        measured = ((entry.default_plan, entry.default_us), (entry.plan, entry.latency_us))
        for plan, us in measured if not entry.cases else ():
            if us is not None and (point := _point(model, shape, plan, us, True)) is not None:
                yield point
    for tried in material.tried:
        if tried.setting == setting_of(table):
            for plan, latency in tried.latencies.items():
                point = _point(model, tried.shape, plan, latency.median, False)
                if point is not None:
                    yield point


def _point(
    model: WaveModel, shape: BatchShape, plan: Plan, us: float, is_of_table: bool
) -> _Point | None:
    """None where the model is not about such a batch or plan."""
    value = plan.number(KNOB)
    if value is None or len(plan) > 1 or len(shape.groups) > 1 or shape.max_query_len > 1:
        return None
    predicted = model.latency_us(shape.num_requests, shape.max_kv_len, value)
    return _Point(str(shape), value, predicted, us, is_of_table)


def _figure(table: FoundTable, points: Sequence[_Point]) -> Figure:
    between = table.file.between
    assert between is not None
    ratios = sorted(abs(point.predicted_us / point.measured_us - 1) for point in points)
    ends = [min(point.measured_us for point in points), max(point.measured_us for point in points)]
    same = {
        "type": "scatter",
        "mode": "lines",
        "x": ends,
        "y": ends,
        "name": "as measured",
        "line": {"color": "@soft", "width": 1.5, "dash": "dash"},
        "hoverinfo": "skip",
    }
    kinds = (("entries of the table", "@1", "circle", True), ("tried plans", "@2", "cross", False))
    groups = [(*kind, [p for p in points if p.is_of_table == kind[3]]) for kind in kinds]
    error = f"{between.error:.1%}" + (f" + {between.error_us:.1f} µs" if between.error_us else "")
    return Figure(
        f"{title_of(table)}: a gain is proven to {error}",
        f"{len(points)} points; half of the predictions are within {ratios[len(ratios) // 2]:.1%} "
        f"of what was measured, the worst is off by {ratios[-1]:.1%}.",
        Numbers(COLUMNS, [_row(point) for point in points]),
        of_table(table),
        [same, *(_trace(*group) for group in groups if group[-1])],
        {
            "height": 420,
            "xaxis": microseconds_axis("measured µs"),
            "yaxis": microseconds_axis("predicted µs"),
        },
    )


def _trace(
    name: str, colour: str, symbol: str, _is_of_table: bool, points: Sequence[_Point]
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [point.measured_us for point in points],
        "y": [point.predicted_us for point in points],
        "marker": {"color": colour, "symbol": symbol, "size": 7, "opacity": 0.8},
        "hoverinfo": "text",
        "hovertext": [f"{point.shape}, {point.value} splits" for point in points],
    }


def _row(point: _Point) -> tuple[str, ...]:
    ratio = f"{point.predicted_us / point.measured_us:.3f}"
    times = (f"{point.predicted_us:.1f}", f"{point.measured_us:.1f}")
    return (point.shape, str(point.value), *times, ratio)
