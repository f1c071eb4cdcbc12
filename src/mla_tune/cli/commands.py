"""The command. Everything heavy is imported where it is used, so that help comes at once."""

__all__ = ["command", "main"]

import contextlib
import gc
import sys
from typing import Any

import click
from click.core import ParameterSource

from mla_tune import __version__
from mla_tune.cli.backends import backends
from mla_tune.cli.compare import compare
from mla_tune.cli.dashboard import dashboard
from mla_tune.cli.history import history
from mla_tune.cli.lookup import lookup
from mla_tune.cli.recheck import recheck
from mla_tune.cli.report import report
from mla_tune.cli.repository import check, diff
from mla_tune.cli.retune import retune
from mla_tune.cli.serve import cache, prepare, serve
from mla_tune.cli.show import show, tables
from mla_tune.cli.standard_streams import standard_streams
from mla_tune.cli.traffic import shapes
from mla_tune.cli.tune import run_tune, tune, tune_options
from mla_tune.cli.vllm_args import vllm_args
from mla_tune.errors import INTERRUPTED, EnvironmentFailure, MlaTuneError


class _Commands(click.Group):
    """The commands; the options of a run without a command are listed by the help of `tune`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [self.get_help_option(ctx), *(p for p in self.params if p.name == "version")]
        with formatter.section("Options"):
            formatter.write_dl([row for p in own if p and (row := p.get_help_record(ctx))])
        self.format_commands(ctx, formatter)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@tune_options
@click.version_option(__version__, prog_name="mla-tune")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Measure the fastest settings for vLLM's MLA attention backends.

    \b
      mla-tune tune --backend TORCH_MLA --shapes examples/shapes.yaml

    tunes every batch shape of the file and writes lookup tables. Run again, it goes on where
    it was. Options of `tune` may also be given without the command's name.
    """  # noqa: D301 - \b is click's mark for text not to be wrapped
    is_bare = all(ctx.get_parameter_source(name) is ParameterSource.DEFAULT for name in options)
    if ctx.invoked_subcommand == tune.name and not is_bare:
        raise click.UsageError("options of tune stand behind it: mla-tune tune --backend …")
    if ctx.invoked_subcommand is None:
        if is_bare:
            click.echo(ctx.get_help())
            sys.exit()
        sys.exit(run_tune(**options))


READING = (show, tables, lookup, compare, report, recheck, vllm_args, diff, check, history)
for subcommand in (tune, *READING, retune, backends, shapes, dashboard, serve, prepare, cache):
    command.add_command(subcommand)


def main() -> None:
    """Run the command; errors of ours end with their message and their exit code."""
    with standard_streams() as output:
        code = _exit_code()
        # Text may wait in a buffer until here.
        with contextlib.suppress(BrokenPipeError):
            output.flush()
    # The interpreter's last collections would go through all that was read: 50 ms of a large table.
    gc.freeze()
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
