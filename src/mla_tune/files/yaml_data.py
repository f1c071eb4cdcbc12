"""From the events of YAML's parser to plain data.

PyYAML lets a repeated key win silently and builds whatever a reference stands for; here a repeated
key is an error, and references count for what they stand for.
"""

__all__ = ["Kind", "plain_data"]

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mla_tune.errors import InputError
from mla_tune.files.yaml_events import MOST_DEPTH, MOST_ITEM_NODES, MOST_KEYS, Events


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


def plain_data(events: Events, kind: Kind, path: Path) -> Any:
    """The data of the one document in ``events``.

    Raises:
        InputError: empty, not YAML, a second document, a repeated key, a reference where the kind
            has none, or more values or levels than any file of ours has; names the line.
    """
    return _Builder(events, kind).document(path)


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
