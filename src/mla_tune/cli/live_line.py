"""The live line of a run on a terminal: count, batch shape, bar, time left and state."""

__all__ = ["live_line"]

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
)
from rich.table import Column
from rich.text import Text

from mla_tune.cli.whole_run import WholeRun


def live_line(console: Console, whole: WholeRun) -> Progress:
    """A line to which tasks are added, each with a field ``state``; nothing off a terminal.

    A narrow terminal cuts the state first, then the bar.
    """
    return Progress(
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20),
        _TimeLeft(whole),
        TextColumn(
            "{task.fields[state]}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        ),
        expand=True,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class _TimeLeft(ProgressColumn):
    """The estimate as it is when the line is drawn, so that it moves between two decisions."""

    def __init__(self, whole: WholeRun) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._whole = whole

    def render(self, task: Task) -> Text:
        return Text(self._whole.time_left if task.id == 0 else "")
