"""Axes that several plots have."""

__all__ = ["ROW", "factor_axis", "interval", "microseconds_axis", "requests_axis", "row_layout"]

import math
from collections.abc import Sequence
from typing import Any

ROW = 22
"""Height of a row, in pixels."""
_SCALE = 36
_LEGEND = 56


def microseconds_axis(title: str = "µs") -> dict[str, Any]:
    """Latency, with ticks that need no reading of exponents."""
    return {
        "type": "log",
        "title": {"text": title},
        "tickvals": [times * 10**power for power in range(1, 6) for times in (1, 2, 5)],
        "ticktext": [
            f"{times}{zeros}" for zeros in ("0", "00", "k", "0k", "00k") for times in (1, 2, 5)
        ],
    }


def requests_axis() -> dict[str, Any]:
    """Batch size, by powers of two."""
    return {
        "type": "log",
        "title": {"text": "requests"},
        "tickvals": [2**power for power in range(12)],
    }


def factor_axis(
    title: str, ticks: Sequence[float], span: tuple[float, float] | None = None
) -> dict[str, Any]:
    """A ratio: twice is as far from one as half is. ``span`` is what is to be seen at least."""
    axis: dict[str, Any] = {
        "type": "log",
        "title": {"text": title},
        "tickvals": list(ticks),
        "tickangle": 0,
    }
    if span is not None:
        axis["range"] = [math.log10(end) for end in span]
    return axis


def row_layout(num_rows: int, xaxis: dict[str, Any], *, has_legend: bool = False) -> dict[str, Any]:
    """One row a category, the first at the bottom, and the scale on top, where reading begins."""
    height = ROW * num_rows
    head = _SCALE + _LEGEND * has_legend
    return {
        "height": height + head + 16,
        "margin": {"l": 8, "r": 8, "t": head, "b": 8},
        "showlegend": has_legend,
        "xaxis": xaxis | {"side": "top"},
        "yaxis": {"type": "category", "dtick": 1, "range": [-0.6, num_rows - 0.4]},
        "legend": {"y": 1 + (_SCALE + 4) / height},
    }


def interval(values: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> Any:
    """Bars from ``lows`` to ``highs``."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for high, value in zip(highs, values, strict=True)],
        "arrayminus": [value - low for low, value in zip(lows, values, strict=True)],
        "thickness": 1.5,
        "width": 0,  # an interval of nothing is not seen
    }
