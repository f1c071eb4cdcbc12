"""Lines on the terminal, printed as data whatever is in them."""

__all__ = ["say", "say_error"]

from rich.console import Console

from mla_tune.errors import MlaTuneError
from mla_tune.printable import printable


def say(console: Console, text: str, style: str = "") -> None:
    """Print one line as data: what it holds may come from a file that another wrote."""
    _print(console, printable(text), style)


def say_error(console: Console, what: str, error: MlaTuneError) -> None:
    """Print what went wrong, on the lines that an error has."""
    _print(console, f"{printable(what)}: {error}", "red")


def _print(console: Console, text: str, style: str) -> None:
    console.print(text, style=style, highlight=False, markup=False, emoji=False, soft_wrap=True)
