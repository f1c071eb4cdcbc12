"""The history of a table: a file of readings beside it, a line each, that is only appended to.

``TRITON_MLA-NVIDIA_H200-heads_16-kv_auto-graph.history.jsonl`` is of the tables of that name for
all releases of vLLM, so that it shows what a new release has changed.
"""

__all__ = ["History", "history_path"]

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.files.own_file import append_whole
from mla_tune.files.regular_file import open_regular
from mla_tune.nightly.reading import Reading
from mla_tune.table import Header
from mla_tune.table.naming import table_path

MOST_BYTES = 256 << 20
"""A table of 51 entries grows by 10 kB a night that looks at a third of them."""

MOST_NOTICES = 5

_RELEASE = re.compile(r"-vllm_[A-Za-z0-9._]+$")


def history_path(folder: Path, header: Header) -> Path:
    """The file of the history of a table in ``folder``."""
    name = _RELEASE.sub("", table_path(folder, header).stem)
    return folder / f"{name}.history.jsonl"


@dataclass(frozen=True)
class History:
    """The readings of a file, by time; ``notices`` says what could not be read, a line each."""

    path: Path
    readings: tuple[Reading, ...] = ()
    notices: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path) -> "History":
        """Read a history; without a file it is empty.

        What is no reading is left out and named, such as half a last line that a kill has left.

        Raises:
            InputError: it cannot be read, or is too large.
        """
        if not path.exists():
            return cls(path)
        lines = _content(path).split(b"\n")
        readings, notices = [], []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                readings.append(Reading.model_validate(json.loads(line)))
            except (ValueError, RecursionError) as error:
                is_last = number == len(lines)
                told = "torn by a kill" if is_last else f"not a reading: {_told(error)}"
                notices.append(f"{path}:{number}: left out, {told}")
        if len(notices) > MOST_NOTICES:
            left_out = len(notices) - MOST_NOTICES
            notices[MOST_NOTICES:] = [f"{path}: {left_out} more lines are left out"]
        return cls(path, tuple(sorted(readings, key=lambda each: each.at)), tuple(notices))

    def append(self, readings: Iterable[Reading]) -> "History":
        """Add ``readings`` in one write that is synced; returns the history with them.

        Raises:
            EnvironmentFailure: the disk is full; the file is as it was.
            InputError: the path is a link that another user has planted, or no regular file.
        """
        added = tuple(readings)
        lines = "".join(f"{each.model_dump_json(exclude_none=True)}\n" for each in added)
        try:
            # After a torn line on a line of its own.
            append_whole(self.path, ("\n" if _is_torn(self.path) else "") + lines)
        except OSError as error:
            raise EnvironmentFailure(
                f"history {self.path} cannot be written: {error.strerror or error}",
                remedy="make room; the tables are as they were",
            ) from None
        return History(self.path, (*self.readings, *added), self.notices)

    @cached_property
    def by_shape(self) -> Mapping[str, tuple[Reading, ...]]:
        """The readings of each entry, by time."""
        found: dict[str, list[Reading]] = {}
        for reading in self.readings:
            found.setdefault(reading.shape, []).append(reading)
        return {shape: tuple(each) for shape, each in found.items()}


def _content(path: Path) -> bytes:
    try:
        with open_regular(path, what="history") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"history {path} cannot be read: {error}") from None
    if len(content) > MOST_BYTES:
        raise InputError(
            f"history {path} is too large",
            valid=f"at most {MOST_BYTES >> 20} MiB",
            remedy="move it aside: the next night begins another",
        )
    return content


def _is_torn(path: Path) -> bool:
    try:
        with open_regular(path, what="history") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            return size > 0 and file.read(1) != b"\n"
    except (InputError, OSError):
        return False


def _told(error: Exception) -> str:
    if isinstance(error, ValidationError):
        detail = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
    return f"{error!s:.100}" if str(error) else type(error).__name__
