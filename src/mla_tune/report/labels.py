"""Strings as Plotly may draw them: it takes a few tags of HTML for markup."""

__all__ = ["labelled"]

from collections.abc import Mapping, Sequence
from typing import Any


def labelled(value: Any) -> Any:
    """A copy of ``value`` whose strings are drawn as they are, tags and entities included."""
    if isinstance(value, str):
        return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if isinstance(value, Mapping):
        # The facets of a trace are compared, and never drawn.
        return {key: item if key == "meta" else labelled(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [labelled(item) for item in value]
    return value
