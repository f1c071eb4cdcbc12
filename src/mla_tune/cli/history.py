"""The command that shows how the entries of a table went, night by night."""

__all__ = ["history"]

from pathlib import Path

import click

from mla_tune.cli.json_output import JSON, print_json
from mla_tune.cli.options import PATH
from mla_tune.errors import InputError


@click.command()
@click.argument("table", type=PATH)
@click.argument("shape", required=False)
@JSON
def history(table: Path, shape: str | None, as_json: bool) -> None:
    """Show what `mla-tune retune` has measured of TABLE, or of its entry SHAPE.

    A change of latency is named when it is beyond the scatter of the nights before, with the first
    night that had it and what was different in the software.
    """
    from rich.console import Console

    from mla_tune.cli.history_view import history_json, show_readings, show_trends
    from mla_tune.nightly.history import History, history_path
    from mla_tune.nightly.trend import trends
    from mla_tune.table import TableFile

    path = history_path(table.parent, TableFile.load(table).header)
    kept = History.load(path)
    for notice in kept.notices:
        click.echo(notice, err=True)
    found = [trend for trend in trends(kept.readings) if shape in (None, trend.shape)]
    if not found:
        raise InputError(
            f"{path} has nothing of {shape or 'any entry'}",
            valid=", ".join(kept.by_shape) or "",
            remedy="'mla-tune retune' writes a line for each entry that it measures",
        )
    if as_json:
        print_json(history_json(path, found))
    elif shape is None:
        show_trends(Console(), path, found)
    else:
        for trend in found:
            show_readings(Console(), trend)
