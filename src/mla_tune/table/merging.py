"""New entries in the text of a table: what does not change keeps its bytes."""

__all__ = ["merged_table", "with_between"]

from pathlib import Path
from typing import Any

from mla_tune.errors import InputError
from mla_tune.files.document import Document
from mla_tune.shapes import Workload
from mla_tune.table.between import Between
from mla_tune.table.entry import Entry
from mla_tune.table.header import WITH_BETWEEN, WITH_SERVED, Header
from mla_tune.table.keys import with_keys
from mla_tune.table.layout import Layout
from mla_tune.table.store import TABLE, TableFile
from mla_tune.table.text import between_line, entry_text, header_text


def merged_table(path: Path, old: TableFile | None, header: Header, new: list[Entry]) -> TableFile:
    """The table with ``new`` in it, read back from its text to make sure that it says so.

    Raises:
        InputError: no text reads back as the entries that are wanted.
    """
    if old is not None:
        header = old.header
    kept = {entry.shape: entry for entry in (old.entries if old is not None else ())}
    wanted = kept | {entry.shape: entry for entry in new if not _says(kept.get(entry.shape), entry)}
    reason = ""
    for layout in (Layout.of(old), None) if old is not None else (None,):
        text = _merged_text(layout, header, kept, wanted)
        try:
            file = TableFile.from_document(Document.parse(path, text, TABLE))
        except InputError as error:
            reason = f": {error.what}"
            # Written by hand in a way that cannot take the change: the whole table is rewritten.
            continue
        found = {entry.shape: entry for entry in file.entries}
        if file.header == header and all(_says(found.get(s), e) for s, e in wanted.items()):
            return _with_version(file)
    raise InputError(f"table {path} cannot be spelled so that it reads back{reason}")


def with_between(file: TableFile, between: Between | None) -> TableFile:
    """The table with a model, read back from its text."""
    if between is None or (file.between and between_line(file.between) == between_line(between)):
        return file
    version = max(WITH_BETWEEN, file.header.schema_version)
    keys = {"schema_version": f"schema_version: {version}", "between": between_line(between)}
    text = with_keys(file.document, keys, before="entries")
    return TableFile.from_document(Document.parse(file.document.path, text, TABLE))


def _with_version(file: TableFile) -> TableFile:
    """The table with the schema version that its entries need."""
    if file.header.schema_version >= WITH_SERVED or not any(e.served for e in file.entries):
        return file
    version = {"schema_version": f"schema_version: {WITH_SERVED}"}
    text = with_keys(file.document, version, before="entries")
    return TableFile.from_document(Document.parse(file.document.path, text, TABLE))


def _says(found: Entry | None, wanted: Entry) -> bool:
    # Compared as written: what a file holds is rounded, what was measured is not.
    return found is not None and (found == wanted or entry_text(found) == entry_text(wanted))


def _merged_text(
    layout: Layout | None, header: Header, kept: dict[str, Entry], wanted: dict[str, Entry]
) -> str:
    """Unchanged entries as ``layout`` has them, the others as `entry_text` writes them."""
    layout = layout or Layout(header_text(header))
    blocks: dict[str, str] = {}
    comments = dict(zip(kept, layout.comments, strict=False))
    old = dict(zip(kept, layout.blocks, strict=False))
    for shape, entry in wanted.items():
        if entry is kept.get(shape) and shape in old:
            blocks[shape] = layout.ended(old[shape])
        else:
            blocks[shape] = comments.get(shape, "") + layout.placed(entry_text(entry))
    ordered = [blocks[shape] for shape in sorted(blocks, key=_reading_order)]
    return "".join([layout.head, *ordered, layout.tail])


def _reading_order(shape: str) -> tuple[Any, ...]:
    """Decode before extend before prefill, small batches before large ones."""
    cases = Workload.parse(shape).cases
    first = cases[0].shape
    return first.query_lens, first.num_requests, first.max_kv_len, len(cases), shape
