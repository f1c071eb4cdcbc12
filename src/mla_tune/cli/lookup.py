"""The command that asks tables for a batch: mla-tune lookup."""

__all__ = ["lookup"]

import sys
from pathlib import Path
from typing import Any

import click

from mla_tune.cli.json_output import JSON, print_json
from mla_tune.cli.options import FACTOR, POSITIVE, size
from mla_tune.cli.printing import folded, terminal_width
from mla_tune.cli.table_sources import TABLES, filtered, read_tables, told_of, with_filters


@click.command()
@TABLES
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
@with_filters
@JSON
def lookup(
    tables: tuple[Path, ...],
    batch: int | None,
    kv_len: int | None,
    query_len: int,
    shape: str | None,
    within: float | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Say which plan tables have for a batch. Exits 1 where all of them miss."""
    if (shape is None) == (batch is None or kv_len is None):
        raise click.UsageError("give --batch and --kv-len, or --shape")
    found, problems = read_tables(tables)

    from mla_tune.cli.lookup_view import answer_text, lookups_json
    from mla_tune.shapes import BatchShape
    from mla_tune.table import DEFAULT_WITHIN

    bound = within or DEFAULT_WITHIN
    answers = []
    for each in filtered(found, **asked):
        table = each.table()
        if shape is not None:
            answer = table.lookup_shape(BatchShape.parse(shape), within=bound)
        else:
            assert batch is not None
            assert kv_len is not None
            answer = table.lookup(batch=batch, kv_len=kv_len, query_len=query_len, within=bound)
        answers.append((each, answer))
    if as_json:
        print_json(lookups_json(answers, problems))
    for each, answer in () if as_json else answers:
        whose = f"{told_of(each)}: " if len(answers) > 1 else ""
        click.echo(folded(f"{whose}{answer_text(answer)}", terminal_width()))
    sys.exit(0 if any(answer.is_hit for _, answer in answers) else 1)
