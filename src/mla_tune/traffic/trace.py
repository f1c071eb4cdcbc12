"""A trace of requests in the CSV format of Azure's public LLM inference traces.

Columns ``TIMESTAMP`` (invocation time), ``ContextTokens`` and ``GeneratedTokens``, as in
https://github.com/Azure/AzurePublicDataset (AzureLLMInferenceDataset2023.md and …2024.md).
"""

__all__ = ["COLUMNS", "TracedRequest", "load_trace"]

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from mla_tune.errors import InputError
from mla_tune.files.regular_file import read_text

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")

MOST_BYTES = 64 << 20
"""Over a million requests; the traces of 2023 have up to 20,000, those of 2024 tens of millions."""

MOST_TOKENS = 10**9


class TracedRequest(NamedTuple):
    """One request.

    Attributes:
        arrival_s: seconds since the first request of the trace.
        context: tokens of its prompt.
        generated: tokens that it was answered with.
    """

    arrival_s: float
    context: int
    generated: int


def load_trace(path: Path) -> list[TracedRequest]:
    """Read the requests of a trace, in the order of their arrival.

    Raises:
        InputError: it cannot be read, is over 64 MiB, lacks a column, has a value that is none
            (names the line), or holds no requests.
    """
    text = read_text(path, what="trace", most_bytes=MOST_BYTES)
    rows = sorted(_rows(path, text))
    if not rows:
        raise InputError(f"the trace {path} holds no requests")
    first = rows[0][0]
    return [
        TracedRequest((arrival - first).total_seconds(), context, generated)
        for arrival, context, generated in rows
    ]


def _rows(path: Path, text: str) -> Iterator[tuple[datetime, int, int]]:
    reader = csv.reader(text.splitlines())
    try:
        header = [name.strip().removeprefix("\ufeff") for name in next(reader, [])]
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise InputError(
                f"{path}:1: the trace has no column {', '.join(missing)}",
                valid=f"a CSV file whose first line is {','.join(COLUMNS)}",
            )
        places = [header.index(name) for name in COLUMNS]
        for row in reader:
            if row:
                yield _request(f"{path}:{reader.line_num}", row, places)
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: {error}") from None


def _request(where: str, row: list[str], places: list[int]) -> tuple[datetime, int, int]:
    if len(row) <= max(places):
        raise InputError(f"{where}: {len(row)} values", valid="one for each column")
    arrival, context, generated = (row[place].strip() for place in places)
    try:
        when = datetime.fromisoformat(arrival)
    except ValueError:
        raise InputError(
            f"{where}: {arrival[:40]!r} is no time", valid="such as 2023-11-16 18:17:03.9799600"
        ) from None
    # Those of 2023 have no zone, those of 2024 have +00:00.
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return when, _tokens(where, context, least=1), _tokens(where, generated, least=0)


def _tokens(where: str, text: str, least: int) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    if not least <= number < MOST_TOKENS:
        raise InputError(
            f"{where}: {text[:40]!r} is no number of tokens",
            valid=f"a whole number of {least} or more, of nine digits at most",
        )
    return number
