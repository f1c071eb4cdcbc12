"""What the options of the command take: types and callbacks that refuse before anything runs."""

__all__ = [
    "DEVICE",
    "DEVICES",
    "DURATION",
    "FACTOR",
    "GUARD_SHARE",
    "NAME",
    "PATH",
    "POSITIVE",
    "RAY",
    "SECONDS",
    "VLLM_COMMAND",
    "WAIT",
    "Finite",
    "HomePath",
    "device_name",
    "device_names",
    "size",
]

import errno
import math
import os
import re
from pathlib import Path
from typing import Any, ClassVar

import click

from mla_tune.errors import InputError
from mla_tune.shapes.batch import MOST_REQUESTS
from mla_tune.tuning import run_options

EMPTY = "it is empty; is a variable of the shell not set?"


def size(_ctx: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """Read a length such as 512 or 4k."""
    from mla_tune.shapes.batch import parse_size

    try:
        return None if value is None else parse_size(value)
    except InputError as error:
        raise click.BadParameter(f"{error.what}; valid: {error.valid}") from None


def device_name(_ctx: click.Context, _option: click.Parameter, value: str) -> str:
    """Refuse what is no device's name before anything is started for it."""
    from mla_tune.device.choice import check_device_name

    try:
        return check_device_name(value)
    except InputError as error:
        raise click.BadParameter(f"{error.what}; valid: {error.valid} {error.remedy}") from None


def device_names(_ctx: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Refuse what names no GPUs before anything is started for it."""
    from mla_tune.device.choice import check_device_names

    try:
        return None if value is None else check_device_names(value)
    except InputError as error:
        raise click.BadParameter(f"{error.what}; valid: {error.valid}") from None


class Finite(click.FloatRange):
    """A number in a range; ``nan`` compares false with both bounds and would pass click's own."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(
                f"{value} is not a finite number; valid: {self._describe_range()}", param, ctx
            )
        return number


class Name(click.ParamType):  # type: ignore[type-arg]  # generic for newer clicks alone
    """A name, or a part of one: of an empty one everything is a part."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).strip():
            self.fail(EMPTY, param, ctx)
        return str(value)


class HomePath(click.Path):
    """A path, in which ``~`` is the user's home: a shell leaves it alone in quotes.

    An empty one would be the working folder, and is a shell's variable that was not set.
    """

    name = "path"

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if not os.fspath(value):
            self.fail(EMPTY, param, ctx)
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        try:
            path = path.expanduser() if path.parts[:1] == ("~",) else path
            path.lstat()
        except OSError as error:
            # That it is not there, or not to be seen, is for those to say who want it.
            if error.errno == errno.ENAMETOOLONG:
                self.fail(f"{path.name[:40]}...: the name is too long", param, ctx)
        except (RuntimeError, ValueError) as error:  # no home; a NUL in the name
            self.fail(f"{path}: {error}", param, ctx)
        return path


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic for newer clicks alone
    """A time such as ``90s``, ``10m``, ``12h`` or ``30d``; a bare number is seconds."""

    name = "time"
    _UNITS: ClassVar = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"(\d{1,9})([smhd]?)", value.strip(), re.ASCII)
        if match is None:
            self.fail(f"{value!r:.40} is no time; valid: 90s, 10m, 12h, 30d", param, ctx)
        return float(match[1]) * self._UNITS[match[2]]


DURATION = Duration()
NAME = Name()
PATH = HomePath()
POSITIVE = click.IntRange(min=1, max=MOST_REQUESTS)
SECONDS = Finite(run_options.SECONDS.least, run_options.SECONDS.most)
FACTOR = Finite(run_options.FACTOR.least)
GUARD_SHARE = Finite(run_options.GUARD_SHARE.least, run_options.GUARD_SHARE.most)

DEVICE = click.option(
    "--device",
    default=run_options.RunOptions.device,
    callback=device_name,
    show_default=True,
    metavar="NAME",
    help="cpu, cuda, cuda:N, or auto.",
)

DEVICES = click.option(
    "--devices",
    callback=device_names,
    metavar="LIST",
    help="Several GPUs side by side: all, or such as 0,1.",
)

RAY = click.option(
    "--ray",
    is_flag=False,
    flag_value="auto",
    metavar="[ADDRESS]",
    help="All devices of a Ray cluster, that of this host unless told otherwise.",
)

WAIT = click.option(
    "--wait", is_flag=True, help="Wait for a device that another run is measuring on."
)

VLLM_COMMAND = click.argument(
    "command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- vllm serve MODEL …"
)
