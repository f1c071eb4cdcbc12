"""The command that shows studies in a browser."""

__all__ = ["dashboard"]

from pathlib import Path

import click

from mla_tune.cli.options import PATH
from mla_tune.tuning.run_options import RunOptions


@click.command()
@click.argument("folder", type=PATH, required=False, metavar="[DIR]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port to listen at; 0 takes any that is free.",
)
def dashboard(folder: Path | None, host: str, port: int) -> None:
    """Show the studies of DIR, the folder of a run's --study-dir, in a browser.

    Nothing is written there, so that it can be open while a run goes on. Needs
    mla-tune[dashboard]. Ctrl-C ends it.
    """
    from mla_tune.tuning.study.dashboard import Dashboard

    found = Dashboard(folder or RunOptions().study_folder, host, port)
    num_journals = len(found.studies.storages())
    for notice in found.studies.notices.values():
        click.echo(notice, err=True)
    files = "1 journal" if num_journals == 1 else f"{num_journals} journals"
    click.echo(f"{files} of {found.studies.path} at {found.url}  (Ctrl-C ends)")
    found.serve()
