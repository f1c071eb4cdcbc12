"""The plots of a report as files, for a pull request.

Kaleido, Plotly's own way to a picture, drives a Chromium that is installed: what is drawn is the
page's plots, by the same Plotly, and nothing is described twice.
"""

__all__ = ["write_plots"]

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.report.figure import Section
from mla_tune.report.labels import labelled
from mla_tune.report.page import numbered, plain
from mla_tune.report.theme import coloured, template

WIDTH = 900
TITLE = 54
"""Pixels."""


def write_plots(sections: Sequence[Section], folder: Path) -> int:
    """Write ``folder/gains-1.svg`` and so on, light; returns how many.

    Raises:
        InputError: Kaleido or a Chromium is not installed, or the folder cannot be written.
        EnvironmentFailure: the browser failed.
    """
    try:
        import kaleido
        from choreographer.errors import BrowserFailedError, ChromeNotFoundError
    except ModuleNotFoundError as error:
        raise InputError(
            f"plots as files need {error.name}, which is not installed",
            remedy="pip install 'mla-tune[report]'",
        ) from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {folder} cannot be made: {error.strerror}") from None
    jobs = list(_jobs(sections, folder))
    try:
        # MathJax would be asked of the network.
        kaleido.write_fig_from_object_sync(jobs, kopts={"mathjax": False})
    except ChromeNotFoundError:
        raise InputError(
            "plots as files need Chromium or Chrome, which is not found",
            remedy="apt-get install chromium, or set BROWSER_PATH to one; the page needs none",
        ) from None
    except (BrowserFailedError, OSError) as error:
        raise EnvironmentFailure(f"the browser that draws plots failed: {error}") from None
    return len(jobs)


def _titled(layout: dict[str, Any], title: str) -> dict[str, Any]:
    """With a title above it, where the page has its caption."""
    shared = template()
    margin = shared["margin"] | layout.get("margin", {})
    height = layout["height"] + TITLE
    above = {"yref": "container", "yanchor": "top"}
    return layout | {
        "template": {"layout": shared},
        "width": WIDTH,
        "height": height,
        "margin": margin | {"t": margin["t"] + TITLE},
        "title": above
        | {
            "text": title,
            "font": {"size": 14},
            "x": 0,
            "xanchor": "left",
            "y": 1 - 24 / height,  # of the first of two lines
            "pad": {"l": 8},
        },
        "legend": layout.get("legend", above | {"y": 1 - TITLE / height}),
    }


def _jobs(sections: Sequence[Section], folder: Path) -> Iterator[dict[str, Any]]:
    for key, section, figure in numbered(sections):
        drawn = plain(figure)
        layout = _titled(drawn["layout"], f"{labelled(section.title)}<br>{labelled(figure.title)}")
        fig = coloured({"data": drawn["data"], "layout": layout}, "light")
        yield {
            "fig": fig,
            "path": os.fspath(folder / f"{key}.svg"),
            "opts": {"format": "svg", "width": WIDTH, "height": layout["height"]},
        }
