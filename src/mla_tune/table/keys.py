"""Changing a table's top-level keys where they stand, without a byte of the rest changing."""

__all__ = ["with_keys"]

from collections.abc import Mapping

from mla_tune.files.document import Document


def with_keys(document: Document, keys: Mapping[str, str], before: str) -> str:
    """The text with the given line for each of ``keys``.

    A key that is there is replaced where it stands, in whatever style it was written; one that is
    not comes in front of the key ``before``. All other lines, comments among them, keep their
    bytes.
    """
    lines = document.text.splitlines(keepends=True)
    newline = "\r\n" if lines[0].endswith("\r\n") else "\n"
    starting = {str(place[0]): line for place, line in document.lines(1) if place}
    missing = [text + newline for key, text in keys.items() if key not in starting]
    for key, first in sorted(starting.items(), key=lambda item: -item[1]):
        if key in keys:
            below = min((line for line in starting.values() if line > first), default=len(lines))
            lines[first : _end(lines, first, below)] = [keys[key] + newline]
        if key == before:
            lines[first:first] = missing
    return "".join(lines)


def _end(lines: list[str], first: int, below: int) -> int:
    """Where a value from line ``first`` on ends: comments right above ``below`` are not its."""
    end = below
    while end - 1 > first and lines[end - 1].lstrip()[:1] in {"", "#"}:
        end -= 1
    return end
