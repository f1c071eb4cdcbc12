"""How the difference of two tables is shown: text, Markdown for a pull request, JSON."""

__all__ = ["FORMATS", "PairDifference"]

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mla_tune.cli.columns import in_columns
from mla_tune.cli.json_output import plain_entry
from mla_tune.cli.printing import folded, terminal_width
from mla_tune.cli.table_view import told_plan
from mla_tune.printable import printable
from mla_tune.table import Entry
from mla_tune.table.difference import EntryChange, TableDifference

COLUMNS = ("shape", "", "old", "old speed-up", "new", "new speed-up")


@dataclass(frozen=True)
class PairDifference:
    """What became of the table of one name; without a difference it stands on one side only."""

    name: str
    status: str
    difference: TableDifference | None = None


def as_text(pairs: Sequence[PairDifference]) -> str:
    """Columns for a terminal, or for a pipe."""
    width = terminal_width()
    lines = []
    for pair in pairs:
        rows = _rows(pair)
        lines.append(folded(_heading(pair), width))
        lines += in_columns(COLUMNS, rows, len(COLUMNS), width) if rows else []
    return "\n".join(lines)


def as_markdown(pairs: Sequence[PairDifference]) -> str:
    """For the body of a pull request."""
    parts = []
    for pair in pairs:
        lines = [f"### {_escaped(_heading(pair))}"]
        rows = _rows(pair)
        if rows:
            table = [COLUMNS, ("---",) * len(COLUMNS), *rows]
            lines += ["", *("| " + " | ".join(map(_escaped, row)) + " |" for row in table)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def as_json(pairs: Sequence[PairDifference]) -> str:
    """Everything, ties and what stayed the same too, for a program."""
    return json.dumps({"tables": [_plain(pair) for pair in pairs]}, indent=1)


FORMATS: Mapping[str, Callable[[Sequence[PairDifference]], str]] = {
    "text": as_text,
    "markdown": as_markdown,
    "json": as_json,
}


def _heading(pair: PairDifference) -> str:
    difference = pair.difference
    if difference is None:
        return f"{printable(pair.name)}: {pair.status}"
    told = ", ".join(f"{count} {kind}" for kind, count in difference.counts().items())
    parts = [f"{printable(pair.name)}: {told or 'no entries'}"]
    means = difference.mean_speedups()
    if means is not None:
        parts.append(f"mean speed-up {means[0]:.3f}× → {means[1]:.3f}×")
    if less := sum(change.is_guarded_less for change in difference.entries):
        parts.append(f"{less} now guarded only as far as a record of served steps reaches")
    if difference.header is not None:
        name, was, now = difference.header
        parts.append(f"{name} was {printable(str(was))}, is {printable(str(now))}")
    return "; ".join(parts)


def _rows(pair: PairDifference) -> list[tuple[str, ...]]:
    """What a person wants to read: what changed, ties, and the same plan at another speed."""
    if pair.difference is None:
        return []
    return [
        (change.shape, _kind(change), *_cells(change.old), *_cells(change.new))
        for change in pair.difference.entries
        if change.kind != "same" or change.has_moved
    ]


def _kind(change: EntryChange) -> str:
    return "moved" if change.has_moved else str(change.kind)


def _cells(entry: Entry | None) -> tuple[str, str]:
    if entry is None:
        return "–", "–"
    shown = str(entry.speedup) if entry.plan and entry.speedup is not None else "–"
    return printable(told_plan(entry)), shown


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _plain(pair: PairDifference) -> dict[str, Any]:
    difference = pair.difference
    if difference is None:
        return {"table": pair.name, "status": pair.status}
    return {
        "table": pair.name,
        "status": pair.status,
        "header": difference.header,
        "mean_speedups": difference.mean_speedups(),
        "entries": [
            {
                "shape": change.shape,
                "kind": change.kind,
                "moved": change.has_moved,
                "old": change.old and plain_entry(change.old),
                "new": change.new and plain_entry(change.new),
            }
            for change in difference.entries
        ],
    }
