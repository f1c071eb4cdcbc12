"""Rows of text in columns, as the commands show them."""

__all__ = ["in_columns", "width_of"]

import itertools
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mla_tune.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

WIDEST = 60
"""Where rows are not folded, one long cell does not push every other apart."""
GAP = "  "
NO_BREAK = "\N{NO-BREAK SPACE}"
# Latin letters, dashes, arrows and signs of arithmetic have one cell.
_OTHER_WIDTH = re.compile("[^\x00-\u02ff\u2010-\u22ff]")
_BEFORE_A_UNIT = re.compile(r" (?=(?:µs|ms|s|→)(?: |$))")


def width_of(console: "Console") -> int | None:
    """How wide lines may be; None where nobody looks at them, as in a pipe or a file."""
    return console.width if console.is_terminal else None


def in_columns(
    titles: Sequence[str],
    rows: Iterable[Sequence[str]],
    num_left_aligned: int,
    width: int | None = None,
) -> list[str]:
    """Lines of ``rows`` below their titles; columns after the first few are aligned right.

    Where rows are wider than ``width``, cells are folded at spaces, those of the widest column
    first, never inside of a word or between a number and its unit. Without a width each row is one
    line, as grep needs it.

    Not by rich's own grid, which takes a millisecond and more a row.
    """
    columns = [_printable(column) for column in zip(titles, *rows, strict=True)]
    widths = [max(_cell_lens(column)) for column in columns]
    if width is None:
        widths = [min(WIDEST, each) for each in widths]
    is_folded = width is not None and _narrowed(widths, columns, width)
    columns = [
        (top, "-" * each, *below) for (top, *below), each in zip(columns, widths, strict=True)
    ]
    if is_folded:
        columns = _folded(columns, widths)
    padded = [
        _padded(column, each, place < num_left_aligned)
        for place, (column, each) in enumerate(zip(columns, widths, strict=True))
    ]
    return [GAP.join(cells).rstrip() for cells in zip(*padded, strict=True)]


def _printable(column: Sequence[str]) -> Sequence[str]:
    return column if "".join(column).isprintable() else [*map(printable, column)]


def _narrowed(widths: list[int], columns: Sequence[Sequence[str]], width: int) -> bool:
    """Take from the widest columns what is too much, as far as words allow; whether any was."""
    if _in_all(widths) <= width:
        return False
    least = [
        max((_cell_len(word) for cell in column for word in _glued(cell).split(" ")), default=1)
        for column in columns
    ]
    while _in_all(widths) > width:
        spare = [number for number, words in enumerate(least) if widths[number] > words]
        if not spare:
            return True
        widths[max(spare, key=lambda number: widths[number])] -= 1
    return True


def _in_all(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _folded(columns: Sequence[Sequence[str]], widths: Sequence[int]) -> list[Sequence[str]]:
    """The same columns with a cell for each line."""
    lines = [line for row in zip(*columns, strict=True) for line in _folded_row(row, widths)]
    return list(zip(*lines, strict=True))


def _folded_row(row: Sequence[str], widths: Sequence[int]) -> list[tuple[str, ...]]:
    cells = [
        textwrap.wrap(_glued(cell), width, break_long_words=False, break_on_hyphens=False)
        if _cell_len(cell) > width
        else [cell]
        for cell, width in zip(row, widths, strict=True)
    ]
    lines = itertools.zip_longest(*cells, fillvalue="")
    return [tuple(cell.replace(NO_BREAK, " ") for cell in line) for line in lines]


def _glued(cell: str) -> str:
    return _BEFORE_A_UNIT.sub(NO_BREAK, cell)


def _padded(column: Sequence[str], width: int, to_the_left: bool) -> list[str]:
    gaps = (" " * (width - length) for length in _cell_lens(column))
    pairs = zip(column, gaps, strict=True)
    return [cell + gap if to_the_left else gap + cell for cell, gap in pairs]


def _cell_lens(column: Sequence[str]) -> Iterable[int]:
    """The cells of a terminal that each text takes."""
    return map(len if _OTHER_WIDTH.search("".join(column)) is None else _cell_len, column)


def _cell_len(text: str) -> int:
    """How many cells of a terminal a text takes: an ideograph has two, an accent none."""
    if _OTHER_WIDTH.search(text) is None:
        return len(text)
    combining = sum(unicodedata.combining(each) != 0 for each in text)
    return len(text) - combining + sum(unicodedata.east_asian_width(each) in "WF" for each in text)
