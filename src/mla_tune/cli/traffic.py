"""The commands that make shapes files: of what an engine has served."""

__all__ = ["shapes"]

from pathlib import Path

import click

from mla_tune.cli.options import PATH


@click.group()
def shapes() -> None:
    """Make shapes files."""


@shapes.command("from-record")
@click.argument("record", type=PATH)
@click.option(
    "--table",
    "tables",
    type=PATH,
    multiple=True,
    help="Put the shapes that this table misses first; may repeat.",
)
def from_record(record: Path, tables: tuple[Path, ...]) -> None:
    """Turn what MLA_TUNE_RECORD wrote into a weighted shapes file, on standard output."""
    from mla_tune.traffic.shapes import shapes_from_traffic

    click.echo(shapes_from_traffic(record, tables), nl=False)
