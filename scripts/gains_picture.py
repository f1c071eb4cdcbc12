"""The picture of the README: a decode step's attention by default and tuned, over requests."""

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, NullFormatter

# Okabe and Ito's, told apart by colour-blind readers; dashes and symbols differ as well.
DEFAULT, TUNED = "#D55E00", "#0072B2"
STYLE: dict[Any, Any] = {
    # Glyphs as paths: the same for every reader, and no font to be found.
    "svg.fonttype": "path",
    "svg.hashsalt": "mla-tune",
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
CREATOR = f"Matplotlib {mpl.__version__}"


@dataclass(frozen=True)
class Curve:
    """One table at one KV length: a point for each captured size that has a plan."""

    num_q_heads: int
    requests: tuple[int, ...]
    default_us: tuple[float, ...]
    tuned_us: tuple[float, ...]

    @property
    def gains(self) -> list[float]:
        """The default's time over the plan's."""
        pairs = zip(self.default_us, self.tuned_us, strict=True)
        return [default / tuned for default, tuned in pairs]


def picture(curves: Sequence[Curve]) -> str:
    """The SVG, the same text for the same curves. Readable at a width of 360 pixels.

    Its ground is white on dark pages too, where GitHub shows the same file.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.2, 3.5), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        axes = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for place, (each, curve) in enumerate(zip(axes, curves, strict=True)):
            _draw(each, curve, is_first=place == 0)
        figure.supxlabel("requests in a decode step", fontsize=12)
        written = io.StringIO()
        told = {"Date": None, "Creator": CREATOR, "Description": _data(curves)}
        figure.savefig(written, format="svg", metadata=told)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()) + "\n"


def same_picture(drawn: str, shown: str) -> bool:
    """Whether ``shown`` shows what ``drawn`` does.

    Byte by byte, unless another release of Matplotlib has drawn it: then by its figures.
    """
    if f"<dc:title>{CREATOR}</dc:title>" in shown:
        return drawn == shown
    figures = [
        re.findall(r"<dc:description>(.*?)</dc:description>", each) for each in (drawn, shown)
    ]
    return figures[0] == figures[1]


def _data(curves: Sequence[Curve]) -> str:
    return json.dumps([vars(curve) for curve in curves])


def _draw(axes: Axes, curve: Curve, *, is_first: bool) -> None:
    default = axes.plot(
        curve.requests, curve.default_us, "s--", color=DEFAULT, ms=3, label="vLLM's default"
    )
    tuned = axes.plot(curve.requests, curve.tuned_us, "o-", color=TUNED, ms=3, label="tuned")
    axes.fill_between(curve.requests, curve.tuned_us, curve.default_us, color=TUNED, alpha=0.08)
    least, most = min(curve.gains), max(curve.gains)
    axes.set_title(f"{curve.num_q_heads} heads: {least:.1f}× to {most:.1f}×", fontsize=12)
    axes.set(xscale="log", yscale="log")
    axes.set_xticks([1, 8, 64, 512])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(_told_time))
    axes.minorticks_off()
    axes.grid(alpha=0.3, lw=0.6)
    if is_first:
        axes.set_ylabel("time of one layer")
        axes.legend(handles=[*default, *tuned], loc="upper left", frameon=False)


def _told_time(latency_us: float, _: int | None = None) -> str:
    return f"{latency_us / 1000:.0f} ms" if latency_us >= 1000 else f"{latency_us:.0f} µs"
