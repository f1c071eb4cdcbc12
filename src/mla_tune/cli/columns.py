"""Rows of text in columns, as the commands show them."""

__all__ = ["in_columns"]

from collections.abc import Iterable, Sequence

from rich.cells import cell_len

from mla_tune.printable import printable

WIDEST = 60
"""One long cell does not push every row apart."""


def in_columns(
    titles: Sequence[str], rows: Iterable[Sequence[str]], num_left_aligned: int
) -> list[str]:
    """Lines of ``rows`` below their titles; columns after the first few are aligned right.

    Not by rich's own grid, which takes a millisecond and more a row.
    """
    shown = [tuple(map(printable, row)) for row in rows]
    columns = zip(titles, *shown, strict=True)
    widths = [min(WIDEST, max(map(cell_len, column))) for column in columns]
    rule = tuple("-" * width for width in widths)
    return [_aligned(row, widths, num_left_aligned) for row in (tuple(titles), rule, *shown)]


def _aligned(row: Sequence[str], widths: Sequence[int], num_left_aligned: int) -> str:
    cells = []
    for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
        gap = " " * (width - cell_len(cell))
        cells.append(cell + gap if place < num_left_aligned else gap + cell)
    return "  ".join(cells).rstrip()
