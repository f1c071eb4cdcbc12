"""The command: arguments and printing. Everything heavy is imported where it is used."""

__all__ = ["main"]

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from mla_tune._version import __version__
from mla_tune.cli.options import (
    FACTOR,
    PATH,
    POSITIVE,
    SECONDS,
    device_name,
    size,
)
from mla_tune.cli.standard_streams import standard_streams
from mla_tune.errors import EnvironmentFailure, MlaTuneError
from mla_tune.printable import printable
from mla_tune.tuning.run_options import MOST_ROUNDS, RunOptions

INTERRUPTED = 130


DEVICE = click.option(
    "--device",
    default=RunOptions.device,
    callback=device_name,
    show_default=True,
    metavar="NAME",
    help="cpu, cuda, cuda:N, or auto.",
)

WAIT = click.option(
    "--wait", is_flag=True, help="Wait for a device that another run is measuring on."
)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME",
    help="Backend to tune; may repeat. Default: those the shapes file lists.",
)
@click.option(
    "--shapes",
    type=PATH,
    metavar="FILE",
    help="Shapes file, or a config of vLLM's attention benchmark.",
)
@click.option(
    "--out",
    type=PATH,
    default=RunOptions.out,
    show_default=True,
    metavar="DIR",
    help="Folder of the tables.",
)
@click.option(
    "--study-dir",
    type=PATH,
    metavar="DIR",
    help="Folder of the journals a run resumes from. [default: user state folder]",
)
@DEVICE
@click.option(
    "--max-tokens",
    callback=size,
    metavar="N",
    help="Leave out shapes of more than N KV tokens in all (4k = 4096).",
)
@click.option(
    "--tensor-parallel-size",
    type=POSITIVE,
    multiple=True,
    metavar="N",
    help="GPUs that share the heads; may repeat. Overrides the file.",
)
@click.option(
    "--min-speedup",
    type=FACTOR,
    help="Publish a plan only if above this at 95 %. [default: 1.01; 1.05 on a CPU]",
)
@click.option(
    "--confirm-seconds",
    type=SECONDS,
    default=RunOptions.confirm_seconds,
    show_default=True,
    help="Most seconds to confirm a shape's best plans against the default.",
)
@click.option(
    "--sample-timeout",
    type=SECONDS,
    default=RunOptions.sample_timeout,
    show_default=True,
    help="Seconds after which a sample counts as hung.",
)
@click.option(
    "--plan-timeout",
    type=SECONDS,
    default=RunOptions.plan_timeout,
    show_default=True,
    help="Seconds that compiling and checking a plan may take.",
)
@click.option(
    "--record",
    type=PATH,
    metavar="FILE",
    help="Also keep every sample taken (gzip with .gz); goes on where FILE ends.",
)
@click.option(
    "--record-rounds",
    type=click.IntRange(min=0, max=MOST_ROUNDS),
    default=RunOptions.record_rounds,
    metavar="N",
    help="HistogramFile N rounds of every plan, side by side, and these alone.",
)
@click.option(
    "--recording",
    type=PATH,
    metavar="FILE",
    help="With --backend RECORDED: play back the samples of FILE.",
)
@WAIT
@click.option("--replace", is_flag=True, help="Start a table anew that is true for something else.")
@click.version_option(__version__, prog_name="mla-tune")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Measure the fastest settings for vLLM's MLA attention backends.

    \b
      mla-tune --backend TORCH_MLA --shapes examples/shapes.yaml

    tunes every batch shape of the file and writes lookup tables. Run again, it goes on where
    it was.
    """  # noqa: D301 - \b is click's mark for text not to be wrapped
    if ctx.invoked_subcommand is None:
        sys.exit(_tune(**options))


def _tune(**options: Any) -> int:
    from rich.console import Console

    from mla_tune.cli.terminal import TerminalReporter
    from mla_tune.tuning.run import run

    console = Console()
    given = RunOptions(**options)
    with TerminalReporter(console) as reporter:
        try:
            result = run(given, reporter)
        except KeyboardInterrupt:
            click.echo(
                f"\ninterrupted; {reporter.num_decided} batch shapes are decided and every "
                f"finished trial is kept in {given.study_folder}. "
                "Run the same command to go on.",
                err=True,
            )
            return INTERRUPTED
    reporter.summary()
    for failure in result.failures:
        click.echo(f"not tuned: {failure.what}: {failure.error}", err=True)
    return max((failure.error.exit_code for failure in result.failures), default=0)


@command.command()
@click.argument("table", type=PATH)
def show(table: Path) -> None:
    """Print TABLE for reading."""
    from rich.console import Console

    from mla_tune.cli.terminal import show_table
    from mla_tune.table import TableFile

    file = TableFile.load(table)
    show_table(Console(), file.header, file.entries)


@command.command()
@click.argument("table", type=PATH)
@click.option("--batch", type=POSITIVE, help="Requests in the batch.")
@click.option("--kv-len", callback=size, help="KV length of each, new tokens counted (4k = 4096).")
@click.option(
    "--query-len", callback=size, default="1", show_default=True, help="New tokens of each."
)
@click.option("--shape", help="A batch spec instead, such as 2q2k_32q1s1k.")
@click.option("--within", type=FACTOR, help="Bound of the nearest entry: a factor.")
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

    from mla_tune.cli.terminal import show_lookup
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


@command.command()
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


@command.command()
@DEVICE
def backends(device: str) -> None:
    """List the backends, their knobs, and whether they run here."""
    from mla_tune.registry import NAMES, get_backend
    from mla_tune.tuning.run import found_environment

    environment = found_environment(device)
    click.echo(f"{environment.device_name}: {environment.software}")
    for name in NAMES:
        backend = get_backend(name)
        reason = backend.unavailable(environment)
        click.echo(f"{name}: {'runs here' if reason is None else f'does not run here: {reason}'}")
        click.echo(f"  knobs: {', '.join(backend.knobs) or 'none'}")
        click.echo(
            f"  modes: {', '.join(backend.modes)}; KV cache: {', '.join(backend.kv_cache_dtypes)}"
        )


@command.command("vllm-args")
@click.argument("tables", type=PATH, nargs=-1, required=True)
@click.option("--vllm", "release", help="vLLM release to spell them for. [default: the table's]")
def vllm_args(tables: tuple[Path, ...], release: str | None) -> None:
    """Print vLLM's own flags for TABLES, and what they cannot express."""
    from mla_tune.vllm.flags import vllm_args as arguments

    for found in arguments(tables, release):
        click.echo(str(found))


@command.group()
def shapes() -> None:
    """Make shapes files."""


@shapes.command("from-record")
@click.argument("record", type=PATH)
@click.option(
    "--table",
    "tables",
    type=PATH,
    multiple=True,
    help="Put the shapes that this table misses first; may repeat.",
)
def from_record(record: Path, tables: tuple[Path, ...]) -> None:
    """Turn what MLA_TUNE_RECORD wrote into a weighted shapes file, on standard output."""
    from mla_tune.traffic.shapes import shapes_from_traffic

    click.echo(shapes_from_traffic(record, tables), nl=False)


def main() -> None:
    """Run the command; errors of ours end with their message and their exit code."""
    with standard_streams() as output:
        code = _exit_code()
        # Text may wait in a buffer until here.
        with contextlib.suppress(BrokenPipeError):
            output.flush()
    sys.exit(code or (EnvironmentFailure.exit_code if output.failure is not None else 0))


def _exit_code() -> int:
    try:
        command(standalone_mode=False)
    except SystemExit as end:
        return int(end.code or 0)
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except MlaTuneError as error:
        click.echo(f"mla-tune: {error}", err=True)
        return error.exit_code
    except BrokenPipeError:
        return 1
    return 0
