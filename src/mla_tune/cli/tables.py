"""The commands that read tables: show, lookup, recheck and vllm-args."""

__all__ = ["lookup", "recheck", "show", "vllm_args"]

import sys
from pathlib import Path

import click

from mla_tune.cli.options import DEVICE, FACTOR, PATH, POSITIVE, WAIT, size
from mla_tune.printable import printable
from mla_tune.tuning.run_options import MOST_ROUNDS


@click.command()
@click.argument("table", type=PATH)
def show(table: Path) -> None:
    """Print TABLE for reading."""
    from rich.console import Console

    from mla_tune.cli.table_view import show_table
    from mla_tune.table import TableFile

    file = TableFile.load(table)
    show_table(Console(), file.header, file.entries)


@click.command()
@click.argument("table", type=PATH)
@click.option("--batch", type=POSITIVE, help="Requests in the batch.")
@click.option("--kv-len", callback=size, help="KV length of each, new tokens counted (4k = 4096).")
@click.option(
    "--query-len", callback=size, default="1", show_default=True, help="New tokens of each."
)
@click.option("--shape", help="A batch spec instead, such as 2q2k_32q1s1k.")
@click.option(
    "--within",
    type=FACTOR,
    help="Of a graph table: how far off KV lengths may be.",
)
def lookup(
    table: Path,
    batch: int | None,
    kv_len: int | None,
    query_len: int,
    shape: str | None,
    within: float | None,
) -> None:
    """Say which plan TABLE has for a batch. Exits 1 on a miss."""
    from rich.console import Console

    from mla_tune.cli.table_view import show_lookup
    from mla_tune.shapes import BatchShape
    from mla_tune.table import DEFAULT_WITHIN, Table

    if (shape is None) == (batch is None or kv_len is None):
        raise click.UsageError("give --batch and --kv-len, or --shape")
    loaded, bound = Table.load(table), within or DEFAULT_WITHIN
    if shape is not None:
        found = loaded.lookup_shape(BatchShape.parse(shape), within=bound)
    else:
        assert batch is not None
        assert kv_len is not None
        found = loaded.lookup(batch=batch, kv_len=kv_len, query_len=query_len, within=bound)
    show_lookup(Console(), found)
    sys.exit(0 if found.is_hit else 1)


@click.command()
@click.argument("tables", type=PATH, nargs=-1, required=True)
@click.option(
    "--rounds", type=click.IntRange(min=4, max=MOST_ROUNDS), default=32, show_default=True
)
@DEVICE
@WAIT
def recheck(tables: tuple[Path, ...], rounds: int, device: str, wait: bool) -> None:
    """Measure every plan that TABLES publish against the default again.

    Exits 1 when one is slower than the default, or does not run.
    """
    from mla_tune.tuning.run import rechecked

    def notice(what: str) -> None:
        click.echo(what, err=True)

    bad = still_open = 0
    for table, result in rechecked(tables, device, rounds, notice, wait=wait):
        click.echo(printable(f"{table.stem}: {result}"))
        bad += bool(result.problem)
        still_open += result.is_open
    if bad:
        click.echo(f"{bad} of the published plans are not as good as published")
    if still_open:
        click.echo(f"{still_open} could not be told; more --rounds, or a quieter machine, tell")
    if not bad and not still_open:
        click.echo("all good")
    sys.exit(1 if bad else 0)


@click.command("vllm-args")
@click.argument("tables", type=PATH, nargs=-1, required=True)
@click.option("--vllm", "release", help="vLLM release to spell them for. [default: the table's]")
def vllm_args(tables: tuple[Path, ...], release: str | None) -> None:
    """Print vLLM's own flags for TABLES, and what they cannot express."""
    from mla_tune.vllm.flags import vllm_args as arguments

    for found in arguments(tables, release):
        click.echo(str(found))
