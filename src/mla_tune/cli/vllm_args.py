"""The command that prints vLLM's own flags for tables."""

__all__ = ["vllm_args"]

from dataclasses import asdict
from pathlib import Path

import click

from mla_tune.cli.json_output import JSON, print_json
from mla_tune.cli.options import PATH


@click.command("vllm-args")
@click.argument("tables", type=PATH, nargs=-1, required=True)
@click.option("--vllm", "release", help="vLLM release to spell them for. [default: the table's]")
@JSON
def vllm_args(tables: tuple[Path, ...], release: str | None, as_json: bool) -> None:
    """Print vLLM's own flags for TABLES, and what they cannot express."""
    from mla_tune.vllm.flags import vllm_args as arguments

    found = arguments(tables, release)
    if as_json:
        print_json({"tables": [asdict(each) for each in found]})
        return
    for each in found:
        click.echo(str(each))
