"""Lines on the terminal, printed as data whatever is in them."""

__all__ = ["folded", "say", "say_error", "terminal_width"]

import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

from mla_tune.errors import MlaTuneError
from mla_tune.printable import printable

if TYPE_CHECKING:
    from rich.console import Console


def terminal_width() -> int | None:
    """How wide lines of standard output may be; None in a pipe or a file, where all fit."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def folded(text: str, width: int | None) -> str:
    """Lines that are folded between words, where a terminal would fold them inside of one."""
    if width is None:
        return text
    lines = [
        textwrap.fill(
            line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        for line in text.split("\n")
    ]
    return "\n".join(lines)


def say(console: "Console", text: str, style: str = "") -> None:
    """Print one line as data: what it holds may come from a file that another wrote."""
    _print(console, printable(text), style)


def say_error(console: "Console", what: str, error: MlaTuneError) -> None:
    """Print what went wrong, on the lines that an error has."""
    _print(console, f"{printable(what)}: {error}", "red")


def _print(console: "Console", text: str, style: str) -> None:
    text = folded(text, console.width if console.is_terminal else None)
    console.print(text, style=style, highlight=False, markup=False, emoji=False, soft_wrap=True)
