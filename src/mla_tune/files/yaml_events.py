"""What YAML's parser finds in a text, one event after another, within bounds.

Building the node tree of a hostile text takes a hundred times its size in memory; events need none,
and the first one beyond a bound ends the reading.
"""

__all__ = ["MOST_DEPTH", "MOST_ITEM_NODES", "MOST_KEYS", "MOST_NODES", "Events", "line_of"]

import re
from pathlib import Path
from typing import Any

import yaml

from mla_tune.errors import InputError

MOST_NODES = 3_000_000
"""A table of 50,000 entries has 1.5 million; a night's shapes file some thousands."""
MOST_ITEM_NODES = 100_000
MOST_KEYS = 1_000
MOST_DEPTH = 32
MOST_CHARACTERS = 65_536
MOST_CACHED = 10_000

_AS_IT_STANDS = {"tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"}

# libyaml's parser is ten times as fast; PyYAML may be built without it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


# YAML 1.1 reads 010 as 8 (octal) and 1:30 as 90 (sexagesimal), which is never what is meant.
_MISREAD = re.compile(r"[-+]?0[0-7_]+$|.*:")


def line_of(event: Any) -> int:
    """The line on which an event starts, counted from zero."""
    line: int = event.start_mark.line
    return line


class Events:
    """The events of one document of ``text``, and what its scalars mean.

    Every method raises InputError, naming the line, for what is not YAML or beyond a bound.
    """

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self.num_nodes = 0
        self._cached: dict[str, Any] = {}
        try:
            self._loader = _LOADER(text)
        except yaml.YAMLError as error:
            raise self._not_yaml(error) from None

    def next(self) -> Any:
        """The next event."""
        try:
            event = self._loader.get_event()
        except yaml.YAMLError as error:
            raise self._not_yaml(error) from None
        if isinstance(event, yaml.NodeEvent):
            self.count(event, 1)
        return event

    def count(self, event: Any, nodes: int) -> None:
        """Note that ``nodes`` more have been read."""
        self.num_nodes += nodes
        if self.num_nodes > MOST_NODES:
            raise self.error(event, f"more than {MOST_NODES} values", "a smaller file")

    def scalar(self, event: Any) -> Any:
        """The value of a scalar's event, as PyYAML's safe loader builds it."""
        is_plain = event.tag is None and event.implicit[0]
        if not is_plain or event.value not in self._cached:
            value = self._built(event)
            if not is_plain or len(self._cached) >= MOST_CACHED:
                return value
            self._cached[event.value] = value
        return self._cached[event.value]

    def _built(self, event: Any) -> Any:
        loader, text = self._loader, event.value
        if len(text) > MOST_CHARACTERS:
            raise self.error(event, f"a text of {len(text)} characters", f"up to {MOST_CHARACTERS}")
        tag = event.tag
        if tag is None or tag == "!":
            tag = loader.resolve(yaml.ScalarNode, text, event.implicit)
        if tag in _AS_IT_STANDS:
            return text
        try:
            node = yaml.ScalarNode(tag, text, event.start_mark, event.end_mark)
            value = loader.construct_object(node, deep=True)
        except yaml.YAMLError as error:
            raise self._not_yaml(error) from None
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError):
            # PyYAML trusts the look of a scalar: 2024-13-45 is a date to it, until it builds one.
            kind = tag.removeprefix("tag:yaml.org,2002:")[:40]
            raise InputError(
                f"{self._path}:{line_of(event) + 1}: {text[:40]!r} is not a valid {kind}",
                remedy="put it in quotes if it is a word",
            ) from None
        loader.constructed_objects.clear()
        if type(value) in (int, float) and _MISREAD.match(text):
            raise self.error(
                event,
                f"{text[:40]} is {str(value)[:40]} in YAML",
                valid="a decimal number, without leading zeros or colons",
                remedy="put it in quotes if it is a word",
            )
        return value

    def error(self, event: Any, what: str, valid: str = "", remedy: str = "") -> InputError:
        """An error about the place of ``event``."""
        return InputError(f"{self._path}:{line_of(event) + 1}: {what}", valid=valid, remedy=remedy)

    def _not_yaml(self, error: yaml.YAMLError) -> InputError:
        mark = getattr(error, "problem_mark", None)
        where = f"{self._path}:{mark.line + 1}" if mark else str(self._path)
        problem = getattr(error, "problem", None) or str(error)
        return InputError(f"{where}: not valid YAML: {problem[:500]}")
