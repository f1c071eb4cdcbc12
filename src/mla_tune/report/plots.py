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
from mla_tune.report.page import numbered, plain
from mla_tune.report.theme import coloured, template

WIDTH = 900


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


def _jobs(sections: Sequence[Section], folder: Path) -> Iterator[dict[str, Any]]:
    for key, figure in numbered(sections):
        drawn = plain(figure)
        layout = drawn["layout"] | {"template": {"layout": template()}, "width": WIDTH}
        fig = coloured({"data": drawn["data"], "layout": layout}, "light")
        yield {
            "fig": fig,
            "path": os.fspath(folder / f"{key}.svg"),
            "opts": {"format": "svg", "width": WIDTH, "height": layout["height"]},
        }
