"""The nightly job: mla-tune retune."""

__all__ = ["TABLES_CHANGED", "retune"]

import sys
from pathlib import Path
from typing import Any

import click

from mla_tune.cli.json_output import JSON, print_json
from mla_tune.cli.options import DEVICE, DEVICES, PATH, RAY, SECONDS, WAIT, Finite
from mla_tune.errors import INTERRUPTED
from mla_tune.tuning.run_options import MOST_PROCESSES, RunOptions

TABLES_CHANGED = 10
"""The exit code of a night that changed a table."""


@click.command()
@click.argument("folder", type=PATH)
@click.option(
    "--study-dir",
    type=PATH,
    metavar="DIR",
    help="Folder of what is under way. [default: user state folder]",
)
@DEVICE
@DEVICES
@RAY
@click.option("--dry-run", is_flag=True, help="Say what would run, and for how long.")
@click.option(
    "--budget-gpu-minutes",
    "budget_minutes",
    type=Finite(0.1, 7 * 24 * 60),
    metavar="N",
    help="Begin no batch shape after N minutes of all GPUs together; the next night goes on.",
)
@click.option(
    "--served",
    type=PATH,
    multiple=True,
    metavar="PATH",
    help="What MLA_TUNE_RECORD wrote: the most served first; may repeat.",
)
@click.option(
    "--confirm-seconds",
    type=SECONDS,
    default=RunOptions.confirm_seconds,
    show_default=True,
    help="As of the main job.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1, max=MOST_PROCESSES),
    default=RunOptions.processes,
    show_default=True,
    metavar="N",
    help="As of the main job.",
)
@click.option(
    "--recording", type=PATH, metavar="FILE", help="Measure from this recording, without a device."
)
@WAIT
@JSON
def retune(
    folder: Path,
    dry_run: bool,
    budget_minutes: float | None,
    served: tuple[Path, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Look after the tables of FOLDER: the job of every night.

    Where the software is what it was, a few entries of each table are measured again, and the
    whole table only if they drifted. Where something changed, what depends on it is tuned anew. A
    new GPU or release gets tables of the same shapes. Each table is one device's of its kind.

    Exits 0 if no table changed, 10 if one did, 1 if one failed.
    """
    from rich.console import Console

    from mla_tune.cli.night_view import (
        exit_code,
        outcomes_json,
        plan_json,
        show_outcomes,
        show_plan,
    )
    from mla_tune.cli.terminal import TerminalReporter
    from mla_tune.nightly.retune import NightOptions, night_in

    console = Console(stderr=as_json)
    asked = NightOptions(folder, served, budget_minutes)
    given = RunOptions(**options)
    with TerminalReporter(console) as reporter, night_in(asked, given, reporter) as night:
        if dry_run:
            print_json(plan_json(night)) if as_json else show_plan(console, night)
            return
        try:
            outcomes = night.run()
        except KeyboardInterrupt:
            told = "every finished trial is kept; run the same command to go on"
            click.echo(f"\ninterrupted; {told}", err=True)
            sys.exit(INTERRUPTED)
    print_json(outcomes_json(outcomes)) if as_json else show_outcomes(console, outcomes)
    sys.exit(exit_code(outcomes, TABLES_CHANGED))
