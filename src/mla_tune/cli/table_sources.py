"""The tables that a command reads: arguments, and filters by GPU and model."""

__all__ = ["TABLES", "TableSource", "filtered", "read_tables", "told_of", "with_filters"]

import contextlib
import gc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from mla_tune.cli.completion import complete_model
from mla_tune.cli.options import NAME, POSITIVE, HomePath
from mla_tune.printable import printable
from mla_tune.table.folders import BUNDLED

if TYPE_CHECKING:
    from mla_tune.catalogue.found import FoundTable


class TableSource(HomePath):
    """A table, a folder of tables, or the word ``bundled`` for the shipped ones."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The word, beside the files and folders that the shell itself offers."""
        word = [CompletionItem(BUNDLED)] if BUNDLED.startswith(incomplete) else []
        return word + super().shell_complete(ctx, param, incomplete)


TABLES = click.argument(
    "tables", type=TableSource(), nargs=-1, required=True, metavar="TABLE|DIR|bundled..."
)


_FILTERS = (
    click.option(
        "--gpu",
        type=NAME,
        metavar="NAME",
        help="Only tables of this GPU: its name or a part of it.",
    ),
    click.option(
        "--model",
        type=NAME,
        metavar="NAME",
        shell_complete=complete_model,
        help="Only tables of this model's dimensions: a preset, a config.json, a name on the hub.",
    ),
    click.option("--tp", type=POSITIVE, default=1, help="GPUs that the model's heads are cut for."),
    click.option("--heads", type=POSITIVE, help="Only tables of so many heads on a GPU."),
    click.option("--mode", type=click.Choice(["graph", "eager"]), help="Only tables of this mode."),
    click.option(
        "--vllm",
        type=NAME,
        metavar="RELEASE",
        help="Only tables of this vLLM: 0.33.0, or all of 0.33.",
    ),
)


def with_filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `filtered`."""
    for option in reversed(_FILTERS):
        function = option(function)
    return function


def read_tables(
    given: Iterable[Path | str], source: str = "given"
) -> tuple[list["FoundTable"], list[str]]:
    """As `mla_tune.catalogue.found.found_tables`; what is left out is told on standard error.

    Called before anything else of tables is imported, it makes that faster too.
    """
    click.get_current_context().with_resource(_sped_up())
    from mla_tune.catalogue.found import found_tables

    found, problems = found_tables(given, source)
    for problem in problems:
        click.echo(f"left out: {printable(problem)}", err=True)
    return found, problems


@contextlib.contextmanager
def _sped_up() -> Iterator[None]:
    """Leave out, for a command, what takes as long as reading thousands of entries does.

    When its first model is made, pydantic looks for plugins in all packages that are installed:
    0.2 s beside vLLM. And the garbage collector looks for circles in tables, which have none.
    """
    name = "PYDANTIC_DISABLE_PLUGINS"
    before, collects = os.environ.get(name), gc.isenabled()
    os.environ[name] = "__all__"
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def filtered(
    tables: Sequence["FoundTable"],
    gpu: str | None,
    model: str | None,
    tp: int,
    heads: int | None,
    mode: str | None,
    vllm: str | None,
) -> list["FoundTable"]:
    """Those of ``tables`` that the options ask for.

    Raises:
        InputError: none is left, or a model that is not known.
        UsageError: options that do not go together.
    """
    from mla_tune.errors import InputError
    from mla_tune.table.device_names import device_kind

    if model is not None and heads is not None:
        raise click.UsageError("give --model or --heads")
    if tp != 1 and model is None:
        raise click.UsageError("--tp divides the heads of --model; --heads are of one GPU already")
    asked = None if model is None else _dimensions(model, tp)
    kept = [
        table
        for table in tables
        if (header := table.file.header)
        and (gpu is None or device_kind(gpu) in device_kind(header.device.name))
        and (asked is None or (header.model, header.engine.index_topk) == asked)
        and heads in (None, header.model["num_q_heads"])
        and mode in (None, header.engine.mode)
        and (vllm is None or f"{header.software.get('vllm')}.".startswith(f"{vllm}."))
    ]
    if not kept:
        there = dict.fromkeys(told_of(table) for table in tables)
        raise InputError("no table is of what you ask for", valid="\n    ".join(["", *there]))
    return kept


def told_of(table: "FoundTable") -> str:
    """What a table is of, in a line."""
    return printable(table.file.header.title)


def _dimensions(model: str, tp: int) -> tuple[dict[str, int], int | None]:
    from dataclasses import asdict

    from mla_tune.shapes.named_model import named_model

    known = named_model(model)
    if known.notice:
        click.echo(known.notice, err=True)
    return asdict(known.dimensions.sharded(tp)), known.index_topk
