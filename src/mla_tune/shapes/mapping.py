"""The keys and values of a shapes file given as Python data, without a file."""

__all__ = ["MappingDocument"]

import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mla_tune.errors import InputError
from mla_tune.files.document import Document, Location
from mla_tune.files.yaml_events import MOST_DEPTH

NAME = "shapes"


class MappingDocument(Document):
    """A document that was never a file: its places are keys, such as ``shapes['engine']``."""

    @classmethod
    def of(cls, mapping: Mapping[str, Any]) -> "MappingDocument":
        """Copy ``mapping`` as plain data: tuples and ranges become lists, NumPy's numbers numbers.

        Raises:
            InputError: a value that no shapes file can hold; names its key.
        """
        return cls(Path(NAME), "", _mapping(mapping, ()))

    def where(self, location: Location) -> str:
        """Return the deepest part of ``location`` that the mapping really holds."""
        value: Any = self.data
        held = 0
        for part in location:
            try:
                value = value[part]
            except (LookupError, TypeError):
                break
            held += 1
        return _named(location[:held])


def _named(location: Location) -> str:
    return NAME + "".join(f"[{part!r}]" for part in location)


def _mapping(mapping: Mapping[Any, Any], location: Location) -> dict[Any, Any]:
    plain = {}
    for key, value in mapping.items():
        name = _plain(key, location)
        if not isinstance(name, str | int | float):
            raise InputError(f"{_named(location)}: a key must be a word or a number, not {key!r}")
        plain[name] = _plain(value, (*location, name))
    return plain


def _plain(value: Any, location: Location) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if len(location) > MOST_DEPTH:
        raise InputError(f"{NAME}: nested too deeply", valid=f"up to {MOST_DEPTH} levels")
    if isinstance(value, Mapping):
        return _mapping(value, location)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_plain(item, (*location, index)) for index, item in enumerate(value)]
    raise InputError(
        f"{_named(location)} is of type {type(value).__name__}",
        valid="what a shapes file can hold: words, numbers, lists and mappings",
    )
