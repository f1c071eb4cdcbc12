"""A YAML document that can say on which line each of its keys stands.

Error messages name a line, and a merge leaves untouched entries byte for byte the same. PyYAML's
plain data has no positions for either.
"""

__all__ = ["Document", "Kind", "Location"]

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from mla_tune.errors import InputError
from mla_tune.files.regular_file import read_text
from mla_tune.files.yaml_data import Kind, plain_data
from mla_tune.files.yaml_events import Events, line_of

Location = tuple[str | int | float, ...]
MOST_BYTES = 32 * 2**20
COMMON_DEPTH = 2


@dataclass(frozen=True)
class Document:
    """One YAML file: its text and its data, a mapping."""

    path: Path
    text: str
    data: dict[str, Any]

    @classmethod
    def load(cls, path: Path, kind: Kind) -> "Document":
        """Read ``path``.

        Raises:
            InputError: missing, unreadable, no regular file, over 32 MiB, empty, not YAML, not a
                mapping, a repeated key, a reference where the kind has none, or more values or
                levels than any file of ours has.
        """
        return cls.parse(path, read_text(path, what=kind.name, most_bytes=MOST_BYTES), kind)

    @classmethod
    def parse(cls, path: Path, text: str, kind: Kind) -> "Document":
        """Parse ``text`` as the contents of ``path``. Raises as `load` does."""
        data = plain_data(Events(path, text), kind, path)
        if not isinstance(data, dict):
            raise InputError(
                f"{kind.name} {path} holds a {type(data).__name__}, not a mapping",
                valid="keys and values at the top level, such as 'model: deepseek-v2-lite'",
            )
        return cls(path, text, data)

    def where(self, location: Location) -> str:
        """Return ``file:line`` of the deepest part of ``location`` that the file really holds."""
        is_deep = len(location) > COMMON_DEPTH
        lines = dict(self.lines(len(location))) if is_deep else self._common_lines
        for depth in range(len(location), -1, -1):
            if location[:depth] in lines:
                return f"{self.path}:{lines[location[:depth]] + 1}"
        return str(self.path)

    @cached_property
    def _common_lines(self) -> dict[Location, int]:
        """The lines of keys and items: a shapes file asks for that of each of its specs."""
        return dict(self.lines(COMMON_DEPTH))

    def lines(self, depth: int) -> Iterator[tuple[Location, int]]:
        """Each location of up to ``depth`` keys, with the line on which it starts, from zero.

        The text is parsed again for it: errors and merges are rare, and keeping a line for every
        value would take more memory than the values.
        """
        events = Events(self.path, self.text)
        while not isinstance(event := events.next(), yaml.NodeEvent):
            pass
        yield (), line_of(event)
        yield from _lines_below((), event, events, depth)


def _lines_below(
    location: Location, start: Any, events: Events, depth: int
) -> Iterator[tuple[Location, int]]:
    """The lines of what stands inside the node that begins with ``start``."""
    is_mapping = isinstance(start, yaml.MappingStartEvent)
    if not is_mapping and not isinstance(start, yaml.SequenceStartEvent):
        return
    index = 0
    while not isinstance(event := events.next(), yaml.CollectionEndEvent):
        line = line_of(event)
        here = (*location, events.scalar(event) if is_mapping else index)
        if len(here) <= depth:
            yield here, line
        value = events.next() if is_mapping else event
        yield from _lines_below(here, value, events, depth)
        index += 1
