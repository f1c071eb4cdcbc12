"""The commands that show whole tables: show, and tables for which there are."""

__all__ = ["show", "tables"]

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mla_tune.cli.json_output import JSON, print_json
from mla_tune.cli.options import NAME
from mla_tune.cli.printing import terminal_width
from mla_tune.cli.table_sources import TABLES, TableSource, filtered, read_tables, with_filters

if TYPE_CHECKING:
    from mla_tune.catalogue.found import FoundTable


@click.command()
@TABLES
@with_filters
@JSON
def show(tables: tuple[Path, ...], as_json: bool, **asked: Any) -> None:
    """Print tables for reading: files, folders, or those that are shipped."""
    found, problems = read_tables(tables)
    shown = filtered(found, **asked)

    from mla_tune.cli.table_view import table_text, tables_json

    if as_json:
        print_json(tables_json(shown, problems))
        return
    width = terminal_width()
    texts = (table_text(each.file.header, each.file.entries, width) for each in shown)
    click.echo("\n\n".join(texts))


@click.command()
@click.argument("folders", type=TableSource(), nargs=-1, metavar="[TABLE|DIR|bundled...]")
@click.option(
    "--gpu",
    type=NAME,
    metavar="NAME",
    help="Of a machine with this GPU: its name, or a part that no other has. [default: here's]",
)
@click.option(
    "--vllm",
    type=NAME,
    metavar="RELEASE",
    help="Of a machine with this vLLM. [default: the one here]",
)
@JSON
def tables(folders: tuple[Path, ...], gpu: str | None, vllm: str | None, as_json: bool) -> None:
    """List tables, and which of them an engine on this machine would use.

    Without arguments those of MLA_TUNE_TABLES, the shipped ones and those that serve and prepare
    have in their cache. An engine compares more: model, KV cache and settings.
    """
    found, problems = read_tables(folders) if folders else _known_tables()

    from mla_tune.catalogue.machine import Machine
    from mla_tune.cli.listing_view import listing_json, listing_text

    machine = Machine.here(gpu and _whole_name(gpu, found), vllm)
    if as_json:
        print_json(listing_json(found, machine, problems))
    else:
        click.echo(listing_text(found, machine, terminal_width()))


def _whole_name(gpu: str, tables: Iterable["FoundTable"]) -> str:
    """The name of the only GPU of the tables that ``gpu`` is a part of; else ``gpu`` itself."""
    from mla_tune.table.device_names import device_kind

    names = {device_kind(name): name for name in (t.file.header.device.name for t in tables)}
    meant = [name for kind, name in names.items() if device_kind(gpu) in kind]
    return meant[0] if len(meant) == 1 else gpu


def _known_tables() -> tuple[list["FoundTable"], list[str]]:
    from mla_tune.errors import InputError
    from mla_tune.serving.cache import Cache, default_cache

    named = [part for part in os.environ.get("MLA_TUNE_TABLES", "").split(os.pathsep) if part]
    cached: list[str] = []
    with contextlib.suppress(InputError):  # without a home folder nothing is cached
        cached = [str(path) for slot in Cache(default_cache()).slots() for path in slot.tables]
    known, problems = [], []
    for source, parts in (
        ("MLA_TUNE_TABLES", named),
        ("shipped", ["bundled"]),
        ("cached", cached),
    ):
        for part in parts:
            try:
                found, left_out = read_tables([part], source)
            except InputError as error:
                click.echo(f"left out: {error}", err=True)
                found, left_out = [], [error.what]
            known += found
            problems += left_out
    return known, problems
