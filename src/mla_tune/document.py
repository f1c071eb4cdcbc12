"""A YAML document that remembers on which line each of its keys stands.

PyYAML gives plain data without positions and lets a repeated key win silently; error
messages that name a line, and a merge that leaves untouched entries byte for byte the same,
need both.
"""

__all__ = ["Document"]

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mla_tune.errors import InputError

Location = tuple[str | int | float, ...]


@dataclass(frozen=True)
class Document:
    """One YAML file: its text, its data (a mapping) and where everything stands.

    ``spans`` maps a location such as ``("entries", 3)`` to the first line of that node and the
    line after its last, both counted from zero.
    """

    path: Path
    text: str
    data: dict[str, Any]
    spans: dict[Location, tuple[int, int]] = field(repr=False)

    @classmethod
    def load(cls, path: Path, *, what: str) -> "Document":
        """Read ``path``; ``what`` names the kind of file in messages ("shapes file").

        Raises:
            InputError: missing, unreadable, empty, not YAML, not a mapping, or a repeated key.
        """
        try:
            # Line ends as they are, for those who write the text back.
            with path.open(encoding="utf-8", newline="") as file:
                text = file.read()
        except FileNotFoundError:
            raise InputError(f"{what} {path} does not exist", remedy="check the path") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{what} {path} cannot be read: {error}") from None
        return cls.parse(path, text, what=what)

    @classmethod
    def parse(cls, path: Path, text: str, *, what: str) -> "Document":
        """Parse ``text`` as the contents of ``path``. Raises as `load` does."""
        spans: dict[Location, tuple[int, int]] = {}
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            if node is None:
                raise InputError(f"{what} {path} is empty", valid="a YAML mapping")
            data = _construct(node, (), spans, path)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{path}:{mark.line + 1}" if mark else str(path)
            problem = getattr(error, "problem", None) or str(error)
            raise InputError(f"{where}: not valid YAML: {problem}") from None
        except RecursionError:
            raise InputError(f"{what} {path} is nested too deeply to read") from None
        if not isinstance(data, dict):
            raise InputError(
                f"{what} {path} holds a {type(data).__name__}, not a mapping",
                valid="keys and values at the top level, such as 'model: deepseek-v2-lite'",
            )
        return cls(path, text, data, spans)

    def where(self, location: Location) -> str:
        """Return ``file:line`` of the deepest part of ``location`` that the file really holds."""
        for depth in range(len(location), -1, -1):
            span = self.spans.get(location[:depth])
            if span is not None:
                return f"{self.path}:{span[0] + 1}"
        return str(self.path)


def _construct(
    node: yaml.Node, location: Location, spans: dict[Location, tuple[int, int]], path: Path
) -> Any:
    """Turn a composed node into plain data, noting the lines of each part in ``spans``."""
    spans.setdefault(location, (node.start_mark.line, node.end_mark.line + 1))
    if isinstance(node, yaml.MappingNode):
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = _scalar(key_node, path)
            if not isinstance(key, str | int | float | bool):
                line = key_node.start_mark.line + 1
                raise InputError(f"{path}:{line}: a key must be a word or a number")
            line = key_node.start_mark.line
            if key in mapping:
                raise InputError(
                    f"{path}:{line + 1}: key {key!r} stands twice",
                    remedy="keep one of the two",
                )
            here = (*location, key)
            spans[here] = (line, value_node.end_mark.line + 1)
            mapping[key] = _construct(value_node, here, spans, path)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [
            _construct(child, (*location, index), spans, path)
            for index, child in enumerate(node.value)
        ]
    return _scalar(node, path)


def _scalar(node: yaml.Node, path: Path) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError):
        # PyYAML trusts the look of a scalar: 2024-13-45 is a date to it, until it builds one.
        line = node.start_mark.line + 1
        tag = node.tag.removeprefix("tag:yaml.org,2002:")
        raise InputError(
            f"{path}:{line}: {str(node.value)[:40]!r} is not a valid {tag}",
            remedy="put it in quotes if it is a word",
        ) from None
    finally:
        loader.dispose()
