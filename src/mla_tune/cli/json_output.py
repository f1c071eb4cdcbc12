"""What the commands print for programs; docs/json.md has the shape of each."""

__all__ = ["JSON", "plain_entry", "plain_plan", "plain_ratio", "print_json"]

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mla_tune.catalogue.timing import Ratio
    from mla_tune.plan.plan import Plan
    from mla_tune.table import Entry

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program.")


def print_json(value: Any) -> None:
    """Print one value, and nothing else: what people are told goes to standard error."""
    click.echo(json.dumps(value, indent=1, allow_nan=False))


def plain_plan(plan: "Plan | None") -> Any:
    """A plan as a table's file has it: a mapping, or the word default."""
    return dict(plan) if plan else "default"


def plain_entry(entry: "Entry") -> dict[str, Any]:
    """All of an entry; a table's file leaves out what is as usual."""
    unproven = None if entry.unproven is None else dict(entry.unproven)
    return entry.model_dump(mode="json") | {"unproven": unproven}


def plain_ratio(ratio: "Ratio | None") -> dict[str, float | None] | None:
    """A factor and its interval, which is null where no table has one."""
    if ratio is None:
        return None
    return {"value": ratio.value, "low": ratio.low, "high": ratio.high}
