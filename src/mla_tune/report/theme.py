"""Colours and type of the plots, on light and on dark ground.

Lines are of Okabe and Ito's palette, darkened or lightened for the ground; orange to blue is for
factors. Readers of any colour vision tell both apart, and symbols differ as well.
"""

__all__ = ["SERIES", "SYMBOLS", "THEMES", "coloured", "template"]

from collections.abc import Mapping, Sequence
from typing import Any

SERIES = ("@1", "@2", "@3", "@4", "@5", "@6", "@7")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon")

THEMES: Mapping[str, Mapping[str, Any]] = {
    "light": {
        "@1": "#0072b2", "@2": "#d55e00", "@3": "#00805d", "@4": "#a8518a", "@5": "#9a6a00",
        "@6": "#3f8fc4", "@7": "#4b5563",
        "@default": "#6b7280", "@winner": "#0072b2", "@slower": "#b04a00",
        "@ink": "#1c2430", "@soft": "#5a6472", "@line": "#e2e6eb", "@ground": "#ffffff",
        "@diverging": [[0, "#a04a00"], [0.25, "#f0a35e"], [0.5, "#f4f6f8"], [0.75, "#8fc4e6"],
                       [1, "#084f8a"]],
        "@sequential": [[0, "#f4f6f8"], [0.3, "#a9d0ea"], [0.65, "#3f8fc4"], [1, "#0a3d66"]],
    },
    "dark": {
        "@1": "#56b4e9", "@2": "#ff8a4c", "@3": "#2fc49b", "@4": "#e79bc6", "@5": "#f0b429",
        "@6": "#9cc9ff", "@7": "#c3cad5",
        "@default": "#a3adbb", "@winner": "#56b4e9", "@slower": "#ff9a5c",
        "@ink": "#e8ecf2", "@soft": "#a9b3c1", "@line": "#2f3845", "@ground": "#171c24",
        "@diverging": [[0, "#b8602a"], [0.25, "#834a28"], [0.5, "#262e3a"], [0.75, "#2a5f92"],
                       [1, "#2b7cc9"]],
        "@sequential": [[0, "#262e3a"], [0.3, "#27507a"], [0.65, "#2a6aa8"], [1, "#2b7cc9"]],
    },
}  # fmt: skip


def template() -> dict[str, Any]:
    """The layout that all plots start from."""
    axis = {
        "gridcolor": "@line",
        "zerolinecolor": "@line",
        "linecolor": "@line",
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 12, "color": "@soft"}},
        "tickfont": {"size": 11},
    }
    return {
        "paper_bgcolor": "@ground",
        "plot_bgcolor": "@ground",
        "font": {"family": "system-ui, -apple-system, Segoe UI, sans-serif", "color": "@ink"},
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "xaxis": axis,
        "yaxis": axis,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {"align": "left"},
        "dragmode": False,
    }


def coloured(value: Any, theme: str) -> Any:
    """A copy of ``value`` with the colours of a theme for their names."""
    if isinstance(value, str):
        return THEMES[theme].get(value, value) if value.startswith("@") else value
    if isinstance(value, Mapping):
        return {key: coloured(item, theme) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [coloured(item, theme) for item in value]
    return value
