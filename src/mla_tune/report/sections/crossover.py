"""From which query length on the prefill path is the faster one."""

__all__ = ["crossover"]

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mla_tune.plan.plan import Plan
from mla_tune.report.axes import factor_axis, interval
from mla_tune.report.figure import Facets, Figure, Numbers, Section, Setting
from mla_tune.report.material import Material, setting_of
from mla_tune.report.theme import SERIES, SYMBOLS
from mla_tune.report.tried import Latency, Tried
from mla_tune.shapes import BatchShape, RequestGroup, format_size
from mla_tune.table import Entry, Speedup

KNOB = "reorder_batch_threshold"
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
COLUMNS = (
    "backend",
    "heads",
    "batch",
    "query length",
    "KV length",
    "prefill over decode (95 %)",
    "faster path",
)


@dataclass(frozen=True)
class _Point:
    """One batch on both paths: how many times as long the prefill path takes as the decode path."""

    setting: Setting
    shape: BatchShape
    ratio: Speedup

    @property
    def group(self) -> RequestGroup:
        return self.shape.groups[0]

    @property
    def faster(self) -> str:
        if self.ratio.low > 1:
            return "decode"
        return "prefill" if self.ratio.high < 1 else "neither beyond noise"


def crossover(material: Material) -> Section:
    """A plot for each backend of which plans were tried, and one of all tables of a GPU."""
    by_setup: dict[tuple[str, ...], list[_Point]] = {}
    for point in _of_tried(material.tried):
        by_setup.setdefault(point.setting.key, []).append(point)
    by_gpu: dict[tuple[str, str], list[_Point]] = {}
    for point in _of_tables(material):
        by_gpu.setdefault((point.setting.of["gpu"], point.setting.of["kv"]), []).append(point)
    return Section(
        "crossover",
        "Decode or prefill path",
        "How many times as long the prefill path takes as the decode path, each at its best plan. "
        "Above 1 the decode path is faster; the threshold belongs where the marks fall through 1. "
        "Bars are 95 % intervals.",
        [
            *(_of_setup(points) for points in by_setup.values()),
            *(_of_gpu(*key, points) for key, points in by_gpu.items()),
        ],
        "an eager table with longer queries, or the recording or the journals of such a run",
    )


def _of_tried(tried: Sequence[Tried]) -> Iterator[_Point]:
    for each in tried:
        query_len = each.shape.max_query_len
        if query_len < 2 or len(each.shape.groups) > 1:
            continue
        sides: tuple[list[Latency], list[Latency]] = ([], [])
        for plan, latency in each.latencies.items():
            threshold = plan.number(KNOB)
            if threshold is not None:
                sides[threshold >= query_len].append(latency)
        if all(sides):
            prefill, decode = (min(side, key=lambda latency: latency.median) for side in sides)
            ratio = Speedup(
                median=prefill.median / decode.median,
                low=prefill.low / decode.high,
                high=prefill.high / decode.low,
            )
            yield _Point(each.setting, each.shape, ratio)


def _of_tables(material: Material) -> Iterator[_Point]:
    for table in material.tables:
        for entry in table.file.entries:
            if (point := _of_entry(setting_of(table), entry)) is not None:
                yield point


def _of_entry(setting: Setting, entry: Entry) -> _Point | None:
    """An entry whose plan takes another path than the default: its speed-up is of the two."""
    if entry.speedup is None or not entry.plan or "{" in entry.shape or entry.speedup.low <= 0:
        return None
    shape = BatchShape.parse(entry.shape)
    if len(shape.groups) > 1 or shape.max_query_len < 2:
        return None
    default, plan = (_decodes(each, shape) for each in (entry.default_plan, entry.plan))
    if default is None or plan is None or default == plan:
        return None
    gain = entry.speedup
    if plan:
        return _Point(setting, shape, gain)
    return _Point(
        setting, shape, Speedup(median=1 / gain.median, low=1 / gain.high, high=1 / gain.low)
    )


def _decodes(plan: Plan, shape: BatchShape) -> bool | None:
    threshold = plan.number(KNOB)
    return None if threshold is None else shape.max_query_len <= threshold


def _of_setup(points: Sequence[_Point]) -> Figure:
    lines: dict[str, list[_Point]] = {}
    for point in sorted(points, key=lambda point: point.group.kv_len):
        # Drawn lengths are all different: what is within an octave is one line.
        octave = 1 << (point.group.kv_len - 1).bit_length()
        lines.setdefault(f"KV up to {format_size(octave)}", []).append(point)
    traces = [_trace(name, line, number) for number, (name, line) in enumerate(lines.items())]
    return _figure(f"Plans tried: {points[0].setting.title}", points, points[0].setting.of, traces)


def _of_gpu(gpu: str, kv: str, points: Sequence[_Point]) -> Figure:
    lines: dict[tuple[str, ...], list[_Point]] = {}
    for point in points:
        lines.setdefault(point.setting.key, []).append(point)
    traces = [
        _trace(f"{line[0].setting.of['backend']} {line[0].setting.of['heads']}", line, number)
        | {"meta": line[0].setting.of}
        for number, line in enumerate(lines.values())
    ]
    title = f"Tables, where the plan takes the other path than the default: {gpu} · KV {kv}"
    return _figure(title, points, {}, traces)


def _figure(
    title: str, points: Sequence[_Point], of: Facets, traces: Sequence[dict[str, Any]]
) -> Figure:
    wins = Counter(point.faster for point in points)
    span = (
        0.9 * min(0.8, *(point.ratio.low for point in points)),
        1.1 * max(1.25, *(point.ratio.high for point in points)),
    )
    return Figure(
        title,
        f"Of {len(points)} batches the decode path is faster at {wins['decode']}, the prefill "
        f"path at {wins['prefill']}.",
        Numbers(COLUMNS, [_row(p) for p in points], [point.setting.of for point in points]),
        of,
        traces,
        {
            "height": 400,
            "xaxis": {"type": "log", "title": {"text": "query length"},
                      "tickvals": [2**power for power in range(14)]},
            "yaxis": factor_axis("prefill path / decode path", TICKS, span),
            "shapes": [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1,
                        "line": {"color": "@soft", "width": 1.5, "dash": "dash"}}],
        },
    )  # fmt: skip


def _trace(name: str, points: Sequence[_Point], number: int) -> dict[str, Any]:
    ratios = [point.ratio for point in points]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [point.group.query_len for point in points],
        "y": [ratio.median for ratio in ratios],
        "error_y": interval(
            [ratio.median for ratio in ratios],
            [ratio.low for ratio in ratios],
            [ratio.high for ratio in ratios],
        ),
        "marker": {
            "symbol": SYMBOLS[number % len(SYMBOLS)],
            "color": SERIES[number % len(SERIES)],
            "size": 9,
        },
        "hoverinfo": "text",
        "hovertext": [f"{point.shape}: {point.ratio}" for point in points],
    }


def _row(point: _Point) -> tuple[str, ...]:
    group = point.group
    lengths = (format_size(group.query_len), format_size(group.kv_len))
    return (
        point.setting.of["backend"],
        point.setting.of["heads"],
        str(point.shape),
        *lengths,
        str(point.ratio),
        point.faster,
    )
