"""How a run that has not begun is shown."""

__all__ = ["plan_text"]

from collections.abc import Sequence

from mla_tune.cli.columns import in_columns
from mla_tune.cli.figures import told_duration
from mla_tune.cli.printing import folded
from mla_tune.printable import printable
from mla_tune.shapes import Workload
from mla_tune.tuning.dry_run import PlannedTable, estimated_seconds
from mla_tune.tuning.run_options import RunOptions

COLUMNS = ("table", "batch shapes", "decided", "to tune")
MOST_NAMED = 8


def plan_text(tables: Sequence[PlannedTable], options: RunOptions, width: int | None = None) -> str:
    """What would be tuned, what is decided, and about how long it takes; see `in_columns`."""
    rows = [
        (table.job.path.stem, *map(_count, (table.job.workloads, table.decided, table.left)))
        for table in tables
    ]
    lines = in_columns(COLUMNS, rows, 1, width)
    told = [f"{t.job.path.stem}: nothing can be added: {t.problem}" for t in tables if t.problem]
    told += [f"{t.job.path.stem}: to tune: {_named(t.left)}" for t in tables if t.left]
    told += [_estimate(tables, options), "nothing was measured or written"]
    return "\n".join([*lines, "", *(folded(printable(line), width) for line in told)])


def _count(workloads: Sequence[Workload]) -> str:
    return str(len(workloads))


def _named(workloads: Sequence[Workload]) -> str:
    more = len(workloads) - MOST_NAMED
    listed = ", ".join(map(str, workloads[:MOST_NAMED]))
    return f"{listed} and {more} more" if more > 0 else listed


def _estimate(tables: Sequence[PlannedTable], options: RunOptions) -> str:
    seconds = estimated_seconds(tables, options)
    if not seconds:
        return "there is nothing to measure"
    if all(table.is_known for table in tables if table.left):
        basis = "by what batch shapes of these tables took here"
    else:
        basis = "by what they took on an H100; long contexts and a CPU may take several times that"
    return f"about {told_duration(seconds)}, {basis}"
