"""The command that says which backend to run: mla-tune compare."""

__all__ = ["compare"]

from pathlib import Path
from typing import Any

import click

from mla_tune.cli.json_output import JSON, print_json
from mla_tune.cli.printing import terminal_width
from mla_tune.cli.table_sources import TABLES, filtered, read_tables, with_filters


@click.command()
@TABLES
@with_filters
@JSON
def compare(tables: tuple[Path, ...], as_json: bool, **asked: Any) -> None:
    """Say which backend to run, from the tables of several.

    Compared is what was measured on the same GPU, for the same model dimensions, KV cache, engine
    mode and batches. A backend counts with its table in use.
    """
    found, problems = read_tables(tables)

    from mla_tune.catalogue.contest import contests
    from mla_tune.cli.compare_view import contest_text, contests_json

    compared = contests(filtered(found, **asked))
    if as_json:
        print_json(contests_json(compared, problems))
        return
    click.echo("\n\n".join(contest_text(each, terminal_width()) for each in compared))
