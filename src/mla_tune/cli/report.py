"""The command that writes results as one page: mla-tune report."""

__all__ = ["report"]

import os
from pathlib import Path
from typing import Any

import click

from mla_tune.cli.options import PATH
from mla_tune.cli.table_sources import TABLES, filtered, read_tables, with_filters
from mla_tune.printable import counted, printable


@click.command()
@TABLES
@click.option(
    "--out",
    type=PATH,
    default="mla-tune-report.html",
    show_default=True,
    metavar="FILE",
    help="Page to write.",
)
@click.option("--study-dir", type=PATH, metavar="DIR", help="Journals of the runs, for all plans.")
@click.option(
    "--recording",
    "recordings",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="Samples of a run's --record; may be given several times.",
)
@click.option(
    "--plots", type=PATH, metavar="DIR", help="Write each plot as SVG too; needs Chromium."
)
@with_filters
def report(
    tables: tuple[Path, ...],
    out: Path,
    study_dir: Path | None,
    recordings: tuple[Path, ...],
    plots: Path | None,
    **asked: Any,
) -> None:
    """Write tables as one HTML page with plots, for people who read results.

    It has what it shows in itself and loads nothing. Histories that 'mla-tune retune' has
    written beside the tables are in it. Needs mla-tune[report].
    """
    found, problems = read_tables(tables)
    shown = filtered(found, **asked)

    from mla_tune.errors import InputError
    from mla_tune.files.atomic_write import write_atomically
    from mla_tune.report.material import gather
    from mla_tune.report.page import page, sections_of
    from mla_tune.report.plots import write_plots

    read = {os.path.realpath(path) for path in (*(each.path for each in found), *recordings)}
    if os.path.realpath(out) in read:
        raise InputError(
            f"page {out} would replace what it is made of", remedy="choose another with --out"
        )
    material = gather(shown, study_dir, recordings, problems)
    sections = sections_of(material)
    text = page(material, sections)
    try:
        write_atomically(out, text)
    except OSError as error:
        raise InputError(
            f"page {out} cannot be written: {error.strerror or error}",
            remedy="choose another with --out",
        ) from None
    size = f"{len(text.encode()) / 1e6:.1f} MB"
    click.echo(f"{printable(str(out))}: {counted(len(shown), 'table')}, {size}")
    for section in sections:
        if not section.figures:
            click.echo(f"left out: {section.title}; what brings it: {section.brought_by}")
    if plots is not None:
        click.echo(f"{printable(str(plots))}: {write_plots(sections, plots)} plots")
