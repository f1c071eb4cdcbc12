"""The text of a table, cut so that entries can change without a byte of the others changing."""

__all__ = ["Layout"]

import itertools
import textwrap
from dataclasses import dataclass

from mla_tune.files.document import Location
from mla_tune.table.store import TableFile


@dataclass(frozen=True)
class Layout:
    """A table's text in parts.

    Attributes:
        head: all up to the first entry.
        blocks: each entry with the comments right above it.
        comments: those comments alone, by entry; they outlive a change of the entry.
        tail: what follows the last entry: comments, or keys of the header.
        indent: column of the entries' dashes.
        newline: how lines end.
    """

    head: str
    blocks: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()
    tail: str = ""
    indent: int = 2
    newline: str = "\n"

    @classmethod
    def of(cls, file: TableFile) -> "Layout | None":
        """Cut a table; None where its entries do not stand on lines of their own.

        That is so for entries in brackets, which no version of this program writes.
        """
        document, count = file.document, len(file.entries)
        lines = document.text.splitlines(keepends=True)
        starting = dict(document.lines(2)) if count else {}
        dashes = _dash_lines(starting, lines, count)
        if not dashes or any(line.strip() == "..." for line in lines):
            return None
        indent = _indent(lines[dashes[0]])
        top = starting["entries",]
        starts = [_with_comments(lines, dash, indent, top) for dash in dashes]
        below = [
            line for location, line in starting.items() if len(location) == 1 and line > dashes[-1]
        ]
        end = _with_comments(lines, min(below, default=len(lines)), indent, dashes[-1])
        bounds = itertools.pairwise([*starts, end])
        return cls(
            head="".join(lines[: starts[0]]),
            blocks=tuple("".join(lines[first:last]) for first, last in bounds),
            comments=tuple(
                "".join(lines[first:dash]) for first, dash in zip(starts, dashes, strict=True)
            ),
            tail="".join(lines[end:]),
            indent=indent,
            newline="\r\n" if lines[0].endswith("\r\n") else "\n",
        )

    def placed(self, block: str) -> str:
        """A new block, written with two spaces before the dash, as it has to stand here."""
        placed = textwrap.indent(textwrap.dedent(block), " " * self.indent)
        return placed.replace("\n", self.newline)

    def ended(self, block: str) -> str:
        """An old block with the line end that the last one of a file may lack."""
        return block if block.endswith("\n") else block + self.newline


def _dash_lines(starting: dict[Location, int], lines: list[str], count: int) -> list[int]:
    """The line of each entry's dash, or nothing where not every entry has one of its own."""
    if not count:
        return []
    top = starting["entries",]
    dashes = []
    for index in range(count):
        line = starting["entries", index]
        # A dash may stand alone, above what it introduces.
        while line > top and not lines[line].lstrip().startswith("-"):
            line -= 1
        dashes.append(line)
    is_block = dashes[0] > top and len(set(dashes)) == count
    return dashes if is_block and len({_indent(lines[line]) for line in dashes}) == 1 else []


def _with_comments(lines: list[str], below: int, indent: int, above: int) -> int:
    """The first line of the comments that stand right above line ``below``, or ``below``."""
    first = line = below
    while line - 1 > above:
        line -= 1
        text = lines[line].strip()
        # A comment deeper than the dashes belongs to the entry it stands in.
        if text and (not text.startswith("#") or _indent(lines[line]) > indent):
            break
        if text:
            first = line
    return first


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
