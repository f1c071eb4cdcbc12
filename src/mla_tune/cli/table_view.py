"""How a table and its entries are shown: as text and for programs."""

__all__ = ["show_table", "table_text", "tables_json", "told_plan", "told_served"]

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mla_tune.cli.columns import in_columns, width_of
from mla_tune.cli.figures import told_speedup, told_time
from mla_tune.cli.json_output import plain_entry
from mla_tune.cli.printing import folded
from mla_tune.printable import printable
from mla_tune.shapes.served_reach import ServedReach
from mla_tune.table import Entry, Header

if TYPE_CHECKING:
    from rich.console import Console

    from mla_tune.catalogue.found import FoundTable

COLUMNS = ("shape", "plan", "time", "default", "speed-up (95 %)", "tied plans")
NUM_LEFT_ALIGNED = 2
OF_TIES = "tied plans: so many others could not be told from the plan"


def show_table(console: "Console", header: Header, entries: Sequence[Entry]) -> None:
    """Print a table's entries in columns, and their notes below."""
    console.out(table_text(header, entries, width_of(console)), highlight=False)


def table_text(header: Header, entries: Sequence[Entry], width: int | None = None) -> str:
    """The lines of a table; see `in_columns` for the width."""
    parts = [f"{name} {told}" for name, told in (header.software_digests or {}).items()]
    above = [printable(header.title)]
    above += [f"measured with {', '.join(map(printable, parts))}"] if parts else []
    lines = in_columns(COLUMNS, map(_cells, entries), NUM_LEFT_ALIGNED, width)
    below = [OF_TIES] if any(entry.ties for entry in entries) else []
    below += [f"{entry.shape}: {told_served(entry.served)}" for entry in entries if entry.served]
    below += [f"{entry.shape}: {printable(entry.note)}" for entry in entries if entry.note]
    prose = (folded(line, width) for line in below)
    return "\n".join([*(folded(line, width) for line in above), *lines, *prose])


def tables_json(tables: Sequence["FoundTable"], problems: Sequence[str]) -> dict[str, Any]:
    """All that stands in the tables, for a program."""
    return {
        "tables": [
            {
                "path": str(table.path),
                "header": table.file.header.model_dump(mode="json"),
                "entries": [plain_entry(entry) for entry in table.file.entries],
            }
            for table in tables
        ],
        "problems": list(problems),
    }


def _cells(entry: Entry) -> tuple[str, ...]:
    return (
        entry.shape,
        told_plan(entry),
        told_time(entry.latency_us),
        told_time(entry.default_us) if entry.default_us else "not measured",
        told_speedup(entry.speedup),
        str(len(entry.ties)),
    )


def told_plan(entry: Entry) -> str:
    """The plan of an entry in a word or its knobs."""
    if entry.unproven is not None:
        return f"default (unproven: {entry.unproven})"
    return str(entry.plan) if entry.plan else "default"


def told_served(reach: ServedReach) -> str:
    """How far the guards of an entry go that was guarded by a record."""
    return (
        f"guarded by what was served, to {reach.to} tokens; {reach.beyond:.2%} of the recorded "
        "steps had longer requests"
    )
