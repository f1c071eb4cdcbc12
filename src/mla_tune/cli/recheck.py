"""The command that measures published plans again."""

__all__ = ["recheck"]

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mla_tune.cli.json_output import JSON, plain_plan, print_json
from mla_tune.cli.options import DEVICE, PATH, WAIT
from mla_tune.printable import printable
from mla_tune.tuning.run_options import MOST_ROUNDS

if TYPE_CHECKING:
    from mla_tune.tuning.recheck import Recheck


@click.command()
@click.argument("tables", type=PATH, nargs=-1, required=True)
@click.option(
    "--rounds", type=click.IntRange(min=4, max=MOST_ROUNDS), default=32, show_default=True
)
@DEVICE
@WAIT
@JSON
def recheck(tables: tuple[Path, ...], rounds: int, device: str, wait: bool, as_json: bool) -> None:
    """Measure every plan that TABLES publish against the default again.

    Exits 1 when one is slower than the default, or does not run.
    """
    from mla_tune.tuning.run import rechecked

    def notice(what: str) -> None:
        click.echo(what, err=True)

    results = []
    for table, result in rechecked(tables, device, rounds, notice, wait=wait):
        results.append((table, result))
        if not as_json:
            click.echo(printable(f"{table.stem}: {result}"))
    bad = sum(bool(result.problem) for _, result in results)
    if as_json:
        print_json({"entries": [_plain(table, result) for table, result in results]})
        sys.exit(1 if bad else 0)
    still_open = sum(result.is_open for _, result in results)
    if bad:
        click.echo(f"{bad} of the published plans are not as good as published")
    if still_open:
        click.echo(f"{still_open} could not be told; more --rounds, or a quieter machine, tell")
    if not bad and not still_open:
        click.echo("all good")
    sys.exit(1 if bad else 0)


def _plain(table: Path, result: "Recheck") -> dict[str, Any]:
    return {
        "table": str(table),
        "shape": result.entry.shape,
        "plan": plain_plan(result.entry.plan),
        "speedup": result.speedup and result.speedup.model_dump(),
        "problem": result.problem or None,
        "doubts": list(result.doubts),
        "open": result.is_open,
    }
