"""Bringing the header of an older table to today's schema without touching its entries."""

__all__ = ["upgraded"]

from collections.abc import Mapping

from mla_tune.errors import InputError
from mla_tune.files.document import Document
from mla_tune.table.header import SCHEMA_VERSION, Header
from mla_tune.table.store import TABLE, TableFile
from mla_tune.table.text import entry_text, header_lines, header_text

# What schema version 2 has beside version 1. The rest is the same in both, or the tables could
# not be merged, and stays as its reader has written it.
CHANGED = ("schema_version", "quantization", "engine")


def upgraded(file: TableFile, header: Header) -> TableFile:
    """``file`` in today's schema, where ``header`` says of the same device and engine all of it."""
    if file.header.schema_version == SCHEMA_VERSION:
        return file
    lines = {key: text for key, text in header_lines(header).items() if key in CHANGED}
    document = file.document
    try:
        respelled = Document.parse(document.path, _with_keys(document, lines), TABLE)
        changed = TableFile.from_document(respelled)
    except InputError:
        changed = None
    if changed is None or not _says(changed, header, file):
        # A reader's spelling that does not bear a change.
        text = header_text(header) + "".join(map(entry_text, file.entries))
        changed = TableFile.from_document(Document.parse(document.path, text, TABLE))
    return changed


def _says(changed: TableFile, header: Header, file: TableFile) -> bool:
    """Whether a text says in today's schema what it is meant to."""
    is_today = changed.header.schema_version == SCHEMA_VERSION
    same_facts = changed.header.first_difference(header) is None
    return is_today and same_facts and changed.entries == file.entries


def _with_keys(document: Document, keys: Mapping[str, str]) -> str:
    """The text with the given line for each of ``keys``.

    A key that is there is replaced where it stands, in whatever style it was written; one that is
    not comes before ``engine``. All other lines, comments among them, keep their bytes.
    """
    lines = document.text.splitlines(keepends=True)
    newline = "\r\n" if lines[0].endswith("\r\n") else "\n"
    starting = {str(place[0]): line for place, line in document.lines(1) if place}
    missing = [text + newline for key, text in keys.items() if key not in starting]
    for key, first in sorted(starting.items(), key=lambda item: -item[1]):
        if key in keys:
            below = min((line for line in starting.values() if line > first), default=len(lines))
            lines[first : _end(lines, first, below)] = [keys[key] + newline]
        if key == "engine":
            lines[first:first] = missing
    return "".join(lines)


def _end(lines: list[str], first: int, below: int) -> int:
    """Where a value from line ``first`` on ends: comments right above ``below`` are not its."""
    end = below
    while end - 1 > first and lines[end - 1].lstrip()[:1] in {"", "#"}:
        end -= 1
    return end
