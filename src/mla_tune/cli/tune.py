"""The main job: tuning for a shapes file, its options and what it prints."""

__all__ = ["run_tune", "tune", "tune_options"]

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from mla_tune.cli.completion import complete_backend
from mla_tune.cli.grouped_help import GroupedCommand
from mla_tune.cli.options import (
    DEVICE,
    DEVICES,
    FACTOR,
    GUARD_SHARE,
    NAME,
    PATH,
    POSITIVE,
    RAY,
    SECONDS,
    WAIT,
    size,
)
from mla_tune.cli.printing import folded, terminal_width
from mla_tune.errors import INTERRUPTED
from mla_tune.printable import counted, printable
from mla_tune.tuning.launches import LAUNCHES
from mla_tune.tuning.run_options import GUARDS, MOST_PROCESSES, MOST_ROUNDS, RunOptions

WHAT = (
    click.option(
        "--backend",
        "backends",
        multiple=True,
        type=NAME,
        metavar="NAME",
        shell_complete=complete_backend,
        help="Backend to tune; may repeat. Default: those the shapes file lists.",
    ),
    click.option(
        "--shapes",
        type=PATH,
        metavar="FILE",
        help="Shapes file, or a config of vLLM's attention benchmark.",
    ),
    click.option(
        "--max-tokens",
        callback=size,
        metavar="N",
        help="Leave out shapes of more than N KV tokens in all (4k = 4096).",
    ),
    click.option(
        "--tensor-parallel-size",
        type=POSITIVE,
        multiple=True,
        metavar="N",
        help="GPUs that share the heads; may repeat. Overrides the file.",
    ),
    click.option(
        "--launches",
        type=click.Choice(LAUNCHES),
        help="Launches of a kernel to try beside vLLM's own (TRITON_MLA): the best few of a "
        "search, or all. [default: few; none for eager tables]",
    ),
)

WHERE_TO = (
    click.option(
        "--out",
        type=PATH,
        default=RunOptions.out,
        show_default=True,
        metavar="DIR",
        help="Folder of the tables.",
    ),
    click.option(
        "--study-dir",
        type=PATH,
        metavar="DIR",
        help="Folder of the journals a run resumes from. [default: user state folder]",
    ),
    click.option(
        "--storage",
        metavar="URL",
        help="Keep the studies in PostgreSQL (postgresql://…), which several runs may share.",
    ),
    click.option(
        "--replace",
        is_flag=True,
        help="Begin a new table where the old one is of another device, model or software.",
    ),
    click.option(
        "--again",
        is_flag=True,
        help="Measure anew what an earlier run has decided. Its entries stay until then.",
    ),
)

DEVICES_USED = (
    DEVICE,
    DEVICES,
    RAY,
    click.option(
        "--units",
        metavar="I/N",
        help="Tune part I of N of the batch shapes, as one of N processes that share folders.",
    ),
    WAIT,
)

WHAT_TO_SHOW = (
    click.option(
        "--dry-run",
        is_flag=True,
        help="Say what would be tuned, what is decided and about how long it takes.",
    ),
    click.option("-v", "--verbose", "is_verbose", is_flag=True, help="Say where the time goes."),
)

HOW_SURE = (
    click.option(
        "--min-speedup",
        type=FACTOR,
        help="Publish a plan only if above this at 95 %. [default: 1.01; 1.05 on a CPU]",
    ),
    click.option(
        "--confirm-seconds",
        type=SECONDS,
        default=RunOptions.confirm_seconds,
        show_default=True,
        help="Most seconds to confirm a shape's best plans against the default.",
    ),
    click.option(
        "--processes",
        type=click.IntRange(min=1, max=MOST_PROCESSES),
        default=RunOptions.processes,
        show_default=True,
        metavar="N",
        help="Race a table's winners in N processes in turn before they are published.",
    ),
    click.option(
        "--sample-timeout",
        type=SECONDS,
        default=RunOptions.sample_timeout,
        show_default=True,
        help="Seconds after which a sample counts as hung.",
    ),
    click.option(
        "--plan-timeout",
        type=SECONDS,
        default=RunOptions.plan_timeout,
        show_default=True,
        help="Seconds that compiling and checking a plan may take.",
    ),
    click.option(
        "--guard",
        type=click.Choice(GUARDS),
        default=RunOptions.guard,
        show_default=True,
        help="Up to which KV lengths a graph's plan must not be slower: the longest that the "
        "engine serves, or those of --served.",
    ),
    click.option(
        "--served",
        type=PATH,
        metavar="PATH",
        help="With --guard served: what MLA_TUNE_RECORD wrote.",
    ),
    click.option(
        "--guard-share",
        type=GUARD_SHARE,
        default=RunOptions.guard_share,
        show_default=True,
        help="With --guard served: the share of a batch size's steps that may be longer.",
    ),
)

RECORDING = (
    click.option(
        "--record",
        type=PATH,
        metavar="FILE",
        help="Also keep every sample taken (gzip with .gz); goes on where FILE ends.",
    ),
    click.option(
        "--record-rounds",
        type=click.IntRange(min=0, max=MOST_ROUNDS),
        default=RunOptions.record_rounds,
        metavar="N",
        help="Record N rounds of every plan, side by side, and these alone.",
    ),
    click.option(
        "--recording",
        type=PATH,
        metavar="FILE",
        help="With --backend RECORDED: play back the samples of FILE.",
    ),
)

GROUPS = {
    "What to tune": WHAT,
    "Where to": WHERE_TO,
    "Devices": DEVICES_USED,
    "How sure": HOW_SURE,
    "Recording": RECORDING,
    "What to show": WHAT_TO_SHOW,
}
"""The options of a run, by the title that they stand under in the help."""


def tune_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command the options of a run, in the order in which help lists them."""
    return _with([option for group in GROUPS.values() for option in group], function)


def _with(
    options: Sequence[Callable[..., Any]], function: Callable[..., Any]
) -> Callable[..., Any]:
    for option in reversed(options):
        function = option(function)
    return function


def run_tune(*, dry_run: bool, is_verbose: bool, **options: Any) -> int:
    """Tune with `RunOptions` of ``options``, or say what would be; returns the exit code."""
    if dry_run:
        return _tell_plan(RunOptions(**options))
    from rich.console import Console

    from mla_tune.cli.terminal import TerminalReporter
    from mla_tune.tuning.run import run

    console = Console()
    given = RunOptions(**options)
    is_brief = given.recording is not None and not is_verbose
    with TerminalReporter(console, is_brief=is_brief, is_verbose=is_verbose) as reporter:
        try:
            result = run(given, reporter)
        except KeyboardInterrupt:
            click.echo(
                f"\ninterrupted; {counted(reporter.num_decided, 'batch shape')} decided, and every "
                f"finished trial is kept in {given.kept_in}. "
                f"Run the same command{' without --again' if given.again else ''} to go on.",
                err=True,
            )
            return INTERRUPTED
    reporter.summary()
    for remark in result.remarks:
        click.echo(remark, err=True)
    for failure in result.failures:
        click.echo(f"not tuned: {failure.what}: {failure.error}", err=True)
    return max((failure.error.exit_code for failure in result.failures), default=0)


def _tell_plan(options: RunOptions) -> int:
    from mla_tune.cli.dry_run_view import plan_text
    from mla_tune.tuning.dry_run import planned_tables

    def notice(what: str) -> None:
        click.echo(folded(printable(what), terminal_width()))

    click.echo(plan_text(planned_tables(options, notice), options, terminal_width()))
    return 0


def _names(options: Sequence[Callable[..., Any]]) -> list[str]:
    group = click.command("group")(_with(options, lambda: None))
    return [str(parameter.name) for parameter in group.params]


@click.command(
    "tune", cls=GroupedCommand, groups={title: _names(part) for title, part in GROUPS.items()}
)
@tune_options
def tune(**options: Any) -> None:
    """Measure the fastest settings, and write them to tables.

    Every batch shape of the shapes file is tuned. Run again, it goes on where it was.
    `mla-tune --backend … --shapes …` without a command is the same.
    """
    sys.exit(run_tune(**options))
