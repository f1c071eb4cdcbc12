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
GAP = 2
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
    shown = [tuple(map(printable, row)) for row in rows]
    columns = list(zip(titles, *shown, strict=True))
    widths = [max(map(_cell_len, column)) for column in columns]
    if width is None:
        widths = [min(WIDEST, each) for each in widths]
    else:
        _narrow(widths, columns, width)
    lines: list[tuple[str, ...]] = []
    for row in (tuple(titles), tuple("-" * width for width in widths), *shown):
        lines += [row] if width is None else _folded(row, widths)
    return [_aligned(line, widths, num_left_aligned) for line in lines]


def _narrow(widths: list[int], columns: Sequence[Sequence[str]], width: int) -> None:
    """Take from the widest columns what is too much, as far as words allow."""
    least = [
        max((_cell_len(word) for cell in column for word in _glued(cell).split(" ")), default=1)
        for column in columns
    ]
    while sum(widths) + GAP * (len(widths) - 1) > width:
        spare = [number for number, words in enumerate(least) if widths[number] > words]
        if not spare:
            return
        widths[max(spare, key=lambda number: widths[number])] -= 1


def _folded(row: Sequence[str], widths: Sequence[int]) -> list[tuple[str, ...]]:
    """The lines of one row."""
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


def _aligned(row: Sequence[str], widths: Sequence[int], num_left_aligned: int) -> str:
    cells = []
    for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
        gap = " " * (width - _cell_len(cell))
        cells.append(cell + gap if place < num_left_aligned else gap + cell)
    return (" " * GAP).join(cells).rstrip()


def _cell_len(text: str) -> int:
    """How many cells of a terminal a text takes: an ideograph has two, an accent none."""
    if _OTHER_WIDTH.search(text) is None:
        return len(text)
    combining = sum(unicodedata.combining(each) != 0 for each in text)
    return len(text) - combining + sum(unicodedata.east_asian_width(each) in "WF" for each in text)
