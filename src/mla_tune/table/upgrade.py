"""Bringing the header of an older table to today's schema without touching its entries."""

__all__ = ["upgraded"]

from mla_tune.errors import InputError
from mla_tune.files.document import Document
from mla_tune.table.header import WITHOUT_BETWEEN, Header
from mla_tune.table.keys import with_keys
from mla_tune.table.store import TABLE, TableFile
from mla_tune.table.text import entry_text, header_lines, header_text

# What later versions have beside version 1. The rest is the same in both, or the tables could not
# be merged, and stays as its reader has written it.
CHANGED = ("schema_version", "quantization", "engine")


def upgraded(file: TableFile, header: Header) -> TableFile:
    """``file`` in today's schema, where ``header`` says of the same device and engine all of it.

    It is given no digests: nobody looked at what it was measured with.
    """
    if file.header.schema_version >= WITHOUT_BETWEEN:
        return file
    undigested = {"schema_version": WITHOUT_BETWEEN, "software_digests": None}
    header = header.model_copy(update=undigested)
    lines = {key: text for key, text in header_lines(header).items() if key in CHANGED}
    document = file.document
    try:
        text = with_keys(document, lines, before="engine")
        respelled = Document.parse(document.path, text, TABLE)
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
    is_today = changed.header.schema_version == header.schema_version
    same_facts = changed.header.first_difference(header) is None
    return is_today and same_facts and changed.entries == file.entries
