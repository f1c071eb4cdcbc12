"""A YAML document that can say on which line each of its keys stands.

PyYAML gives plain data without positions and lets a repeated key win silently; error
messages that name a line, and a merge that leaves untouched entries byte for byte the same,
need both.
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
from mla_tune.files.yaml_events import MOST_DEPTH, MOST_ITEM_NODES, MOST_KEYS, Events, line_of

Location = tuple[str | int | float, ...]
MOST_BYTES = 32 * 2**20
COMMON_DEPTH = 2


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: what it is called in messages ("shapes file").
        may_refer: whether ``*name`` and merge keys (``<<``) are read. They are a writer's tool; a
            table is written by this program, which could not keep them when entries change.
    """

    name: str
    may_refer: bool = False


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
        data = _Builder(Events(path, text), kind).document(path)
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


@dataclass
class _Anchored:
    """What ``&name`` stands for, and how many values that is."""

    value: Any
    nodes: int


class _Builder:
    """Turns events into plain data."""

    def __init__(self, events: Events, kind: Kind) -> None:
        self._events = events
        self._kind = kind
        self._anchored: dict[str, _Anchored] = {}

    def document(self, path: Path) -> Any:
        """The only document of the stream."""
        events = self._events
        events.next()  # the stream starts
        if isinstance(events.next(), yaml.StreamEndEvent):
            raise InputError(f"{self._kind.name} {path} is empty", valid="a YAML mapping")
        data = self._node(events.next(), 0)
        events.next()  # the document ends
        if not isinstance(event := events.next(), yaml.StreamEndEvent):
            raise events.error(event, "not valid YAML: a second document begins here")
        return data

    def _node(self, event: Any, depth: int) -> Any:
        events, before = self._events, self._events.num_nodes
        if depth > MOST_DEPTH:
            raise events.error(event, "nested too deeply to read", f"up to {MOST_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._referred(event)
        if isinstance(event, yaml.MappingStartEvent):
            value: Any = self._mapping(depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(depth)
        else:
            value = events.scalar(event)
        nodes = events.num_nodes - before + 1
        # Pydantic lists every fault of a value: one entry must not hold a million of them.
        if depth >= 2 and nodes > MOST_ITEM_NODES:
            raise events.error(event, f"holds {nodes} values", f"up to {MOST_ITEM_NODES}")
        if event.anchor is not None and self._kind.may_refer:
            self._anchored[event.anchor] = _Anchored(value, nodes)
        return value

    def _sequence(self, depth: int) -> list[Any]:
        values = []
        while not isinstance(event := self._events.next(), yaml.SequenceEndEvent):
            values.append(self._node(event, depth + 1))
        return values

    def _mapping(self, depth: int) -> dict[Any, Any]:
        events = self._events
        mapping: dict[Any, Any] = {}
        merged: dict[Any, Any] = {}
        while not isinstance(event := events.next(), yaml.MappingEndEvent):
            if _is_merge(event) and self._kind.may_refer:
                merged = self._merged(event, self._node(events.next(), depth + 1)) | merged
                continue
            key = self._key(event)
            if key in mapping:
                raise events.error(event, f"key {key!r} stands twice", remedy="keep one of the two")
            mapping[key] = self._node(events.next(), depth + 1)
            if len(mapping) > MOST_KEYS:
                raise events.error(event, f"more than {MOST_KEYS} keys", "a smaller mapping")
        return merged | mapping

    def _key(self, event: Any) -> Any:
        key = self._events.scalar(event) if isinstance(event, yaml.ScalarEvent) else None
        if not isinstance(key, str | int | float | bool):
            raise self._events.error(event, "a key must be a word or a number")
        return key

    def _merged(self, event: Any, value: Any) -> dict[Any, Any]:
        """What ``<<`` brings in: a mapping, or a list of which the first wins."""
        sources = value if isinstance(value, list) else [value]
        merged: dict[Any, Any] = {}
        for source in sources:
            if not isinstance(source, dict):
                raise self._events.error(event, "<< takes mappings only", "<<: *name")
            merged = source | merged
        return merged

    def _referred(self, event: Any) -> Any:
        if not self._kind.may_refer:
            raise self._events.error(
                event,
                f"a {self._kind.name} has no references (*{event.anchor})",
                remedy="write out what it stands for",
            )
        anchored = self._anchored.get(event.anchor)
        if anchored is None:
            problem = f"*{event.anchor} refers to nothing above it"
            raise self._events.error(event, problem, f"a name given with &{event.anchor}")
        # What it stands for counts each time: ten lines of references can stand for a billion.
        self._events.count(event, anchored.nodes)
        return anchored.value


def _is_merge(event: Any) -> bool:
    return isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]
