"""How a table is spelled: one line a field, figures rounded to what a measurement can carry."""

__all__ = ["between_line", "entry_text", "header_lines", "header_text", "one_line"]

from typing import TYPE_CHECKING, Any

import yaml

from mla_tune.table.entry import Entry
from mla_tune.table.header import Header

if TYPE_CHECKING:
    from mla_tune.table.between import Between


def header_text(header: Header) -> str:
    """A table without entries."""
    return "\n".join([*header_lines(header).values(), "entries:", ""])


def header_lines(header: Header) -> dict[str, str]:
    """The line of each key of a header."""
    fields = header.model_dump(exclude_none=True)
    return {name: f"{name}: {one_line(value)}" for name, value in fields.items()}


def between_line(between: "Between") -> str:
    """The line of a table's model."""
    return f"between: {one_line(between.model_dump(exclude_none=True))}"


def entry_text(entry: Entry) -> str:
    """The lines of an entry, with two spaces before its dash."""
    fields = entry.model_dump(exclude_defaults=True)
    lines = [
        f"{name}: {one_line(value)}"
        for name, value in fields.items()
        if name != "cases" and value not in ((), None)
    ]
    for index, case in enumerate(fields.get("cases", ())):
        lines += ["cases:"] if index == 0 else []
        lines.append(f"  - {one_line(case)}")
    return "  - " + "\n    ".join(lines) + "\n"


class _OneLine(yaml.SafeDumper):
    """Writes even a text of several lines on one, escaped."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = '"' if len(text.splitlines()) > 1 or text.endswith(LINE_ENDS) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


LINE_ENDS = ("\n", "\r", "\x85", "\u2028", "\u2029")
_OneLine.add_representer(str, _OneLine.represent_text)


def one_line(value: Any) -> str:
    """One line of YAML, with figures rounded to what a measurement can carry."""
    text = yaml.dump(
        _rounded(value),
        Dumper=_OneLine,
        default_flow_style=True,
        sort_keys=False,
        width=2**31,
        allow_unicode=True,
    )
    return str(text).removesuffix("...\n").strip("\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}") if abs(value) < 1000 else round(value, 1)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
