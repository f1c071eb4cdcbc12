"""The commands that stand before vLLM's: serve, prepare, and what they keep in their cache."""

__all__ = ["cache", "prepare", "serve"]

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from mla_tune.cli.completion import complete_backend
from mla_tune.cli.json_output import JSON, print_json
from mla_tune.cli.options import DEVICE, DURATION, NAME, PATH, VLLM_COMMAND
from mla_tune.tuning.run_options import MOST_PROCESSES

CACHE = click.option(
    "--cache",
    "folder",
    type=PATH,
    metavar="DIR",
    help="Folder of the tables, which engines may share. [default: user cache folder]",
)

OPTIONS = (
    click.option(
        "--tune-for",
        type=DURATION,
        default="120s",
        show_default=True,
        help="The longest that all this may take before vLLM starts, such as 90s or 10m.",
    ),
    CACHE,
    click.option(
        "--backend",
        type=NAME,
        metavar="NAME",
        shell_complete=complete_backend,
        help="Tune this backend, and have vLLM use it. Default: the one that vLLM chooses.",
    ),
    click.option(
        "--pick-backend",
        is_flag=True,
        help="Tune all backends that vLLM takes here, compare them, and start with the fastest.",
    ),
    DEVICE,
    click.option(
        "--processes",
        type=click.IntRange(min=1, max=MOST_PROCESSES),
        default=1,
        show_default=True,
        metavar="N",
        help="Race winners in N processes before they are published: after all were looked at.",
    ),
    VLLM_COMMAND,
)


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(OPTIONS):
        function = option(function)
    return function


@click.command()
@_options
@click.option(
    "--no-metrics",
    is_flag=True,
    help="Leave vLLM's /metrics as they are: without the counts of what the tables do.",
)
def serve(command: tuple[str, ...], no_metrics: bool, **options: Any) -> None:
    """Tune what is missing for a vLLM command, then become it.

    \b
      mla-tune serve -- vllm serve MODEL …

    Tables are looked for in MLA_TUNE_TABLES, among the shipped ones and in the cache. If anything
    of this fails, vLLM starts untuned and one line says why. Ctrl-C keeps what is decided and does
    not start vLLM.
    """  # noqa: D301 - \b is click's mark for text not to be wrapped
    from mla_tune.serving.start import Stopped, become, prepared_or_untuned, stopping
    from mla_tune.serving.vllm_command import VllmCommand

    began_s = time.monotonic()
    given = VllmCommand.of(command)
    try:
        with stopping():
            asked = partial(_asked, given, began_s, **options)
            preparation = prepared_or_untuned(given, asked, _say)
    except Stopped as stopped:
        raise SystemExit(stopped.exit_code) from None
    become(preparation, os.environ, _say, metrics=not no_metrics)


@click.command()
@_options
def prepare(command: tuple[str, ...], **options: Any) -> None:
    """Do what serve does, without the start: for an init container.

    Exits 0 when there are tables, of all sizes or of those that there was time for; 2 where
    nothing can be tuned or vLLM refuses the command; 3 when the machine failed.
    """
    from mla_tune.serving.prepare import prepared
    from mla_tune.serving.start import Stopped, stopping
    from mla_tune.serving.vllm_command import VllmCommand

    began_s = time.monotonic()
    try:
        with stopping():
            found = prepared(_asked(VllmCommand.of(command), began_s, **options))
    except Stopped as stopped:
        raise SystemExit(stopped.exit_code) from None
    if found.problem:
        _say(f"not all could be tuned: {found.problem}")


def _asked(command: Any, began_s: float, tune_for: float, **options: Any) -> Any:
    from mla_tune.serving.prepare_options import PrepareOptions

    return PrepareOptions(
        command=command,
        cache=_cache(options.pop("folder")),
        deadline_s=began_s + tune_for,
        say=_say,
        **options,
    )


def _say(line: str) -> None:
    from mla_tune.printable import printable

    click.echo(f"mla-tune: {printable(line)}", err=True)


def _cache(folder: Path | None) -> Any:
    from mla_tune.serving.cache import Cache, default_cache

    return Cache(default_cache() if folder is None else folder.absolute())


@click.group()
def cache() -> None:
    """List or clean the tables that serve and prepare keep."""


@cache.command("list")
@CACHE
@JSON
def list_cache(folder: Path | None, as_json: bool) -> None:
    """List the tables, how many entries they have, and when they were last used."""
    from mla_tune.cli.cache_view import cache_json, cache_text

    found = _cache(folder)
    if as_json:
        print_json(cache_json(found))
    else:
        click.echo(cache_text(found))


@cache.command("clean")
@CACHE
@click.option(
    "--older-than",
    type=DURATION,
    default="0s",
    metavar="TIME",
    help="Keep what was used since, such as 30d. Without it all goes.",
)
@JSON
def clean_cache(folder: Path | None, older_than: float, as_json: bool) -> None:
    """Remove tables and journals from the cache, but not from under a start that tunes them."""
    from mla_tune.errors import EnvironmentFailure

    try:
        removed, busy = _cache(folder).clean(older_than)
    except OSError as error:
        raise EnvironmentFailure(
            f"the cache cannot be cleaned: {error.filename}: {error.strerror}"
        ) from None
    if as_json:
        names = [[slot.path.name for slot in slots] for slots in (removed, busy)]
        print_json(dict(zip(("removed", "busy"), names, strict=True)))
        return
    for slot in removed:
        click.echo(f"removed {slot.path.name}")
    for slot in busy:
        click.echo(f"kept {slot.path.name}: it is being tuned")
