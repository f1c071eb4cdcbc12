"""The commands for a repository of tables and its pull requests: diff and check."""

__all__ = ["check", "diff"]

import sys
from pathlib import Path

import click

from mla_tune.cli.json_output import JSON, print_json
from mla_tune.cli.options import PATH
from mla_tune.errors import InputError
from mla_tune.printable import counted, counted_are, printable


@click.command()
@click.argument("old", type=PATH)
@click.argument("new", type=PATH)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    show_default=True,
    help="Markdown is for a pull request, JSON for a program.",
)
@JSON
def diff(old: Path, new: Path, form: str, as_json: bool) -> None:
    """Compare two tables, or two folders of tables, entry by entry.

    Another plan that either table calls a tie is marked as one. Exits 1 where an engine would get
    something else from NEW than from OLD.
    """
    if as_json and form == "markdown":
        raise click.UsageError("give --format markdown or --json")
    from mla_tune.cli.difference_view import FORMATS, PairDifference
    from mla_tune.table import TableFile
    from mla_tune.table.difference import TableDifference
    from mla_tune.table.pairs import paired

    found = []
    for pair in paired(old, new):
        if pair.old is None or pair.new is None:
            found.append(PairDifference(pair.name, "added" if pair.old is None else "removed"))
            continue
        difference = TableDifference.of(TableFile.load(pair.old), TableFile.load(pair.new))
        is_same = difference.header is None and not difference.decisions
        found.append(PairDifference(pair.name, "same" if is_same else "changed", difference))
    click.echo(FORMATS["json" if as_json else form](found))
    sys.exit(any(pair.status != "same" for pair in found))


@click.command()
@click.argument("folder", type=PATH)
@JSON
def check(folder: Path, as_json: bool) -> None:
    """Check every table in FOLDER as the CI of a repository of tables would.

    Schema, plans outside of a backend's bounds, repeated keys, two tables for one thing, figures
    that contradict each other, and entries that lost against the default. Exits 1 where there is
    something wrong.
    """
    from mla_tune.table import TableFile
    from mla_tune.table.folders import tables_in
    from mla_tune.tuning.audit import audited, twins

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder", valid="a folder of tables (*.yaml)")
    paths, problems = tables_in(folder)
    if not paths and not problems:
        raise InputError(f"{folder} has no tables", valid="a folder of tables (*.yaml)")
    read = []
    for path in paths:
        try:
            file = TableFile.load(path)
        except InputError as error:
            problems.append("; ".join(str(error).splitlines()))
            continue
        read.append((path, file))
        problems += audited(file)
    problems += twins(read)
    entries = [entry for _, file in read for entry in file.entries]
    by_record = sum(entry.served is not None for entry in entries)
    if as_json:
        counts = {"num_tables": len(read), "num_entries": len(entries), "num_by_record": by_record}
        print_json({"folder": str(folder), **counts, "problems": problems})
        sys.exit(bool(problems))
    for problem in problems:
        click.echo(printable(problem))
    if by_record:
        entries_are = counted_are(by_record, "entry")
        click.echo(f"{entries_are} guarded as far as a record of served steps reaches")
    found = counted(len(problems), "problem") if problems else "no problems"
    click.echo(f"{counted(len(read), 'table')}, {counted(len(entries), 'entry')}: {found}")
    sys.exit(bool(problems))
