"""Reading a table that is spelled as `mla_tune.table.text` spells it, without a YAML parser.

A table of 5,000 entries takes libyaml's events and Python a second; most tables are as they were
written. What is spelled in any other way, by a single character, is left to the parser: this
answers with the same data, or not at all.
"""

__all__ = ["as_written"]

import re
from collections.abc import Callable
from typing import Any

from mla_tune.errors import InputError

# Beyond these the parser reads, which knows how much of what is too much.
MOST_CHARACTERS = 8 * 2**20
MOST_CASES = 1_000
_LINE = r"[^\n]{1,4096}"

_NUMBER = r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,17})?"
_SHAPE = r"\d{0,9}q[0-9qsk_]{1,2000}(?:\{[0-9k,]{1,2000}\})?"
_SPEEDUP = rf"\{{median: {_NUMBER}, low: {_NUMBER}, high: {_NUMBER}\}}"

# In the order in which they are written; each may be absent.
_FIELDS = {
    "weight": _NUMBER,
    "plan": _LINE,
    "unproven": _LINE,
    "default_plan": _LINE,
    "ties": rf"\[{_LINE}\]",
    "holds_to": _NUMBER,
    "holds_ragged": "true",
    "served": rf"\{{to: {_NUMBER}, beyond: {_NUMBER}\}}",
    "latency_us": _NUMBER,
    "default_us": _NUMBER,
    "speedup": _SPEEDUP,
    "processes": _NUMBER,
    "note": _LINE,
}
_ENTRY = re.compile(
    rf"  - shape: ({_SHAPE})\n"
    + "".join(rf"(?:    {name}: ({value})\n)?" for name, value in _FIELDS.items())
    + rf"(?:    cases:\n((?:      - {_LINE}\n){{1,{MOST_CASES}}}))?",
    re.ASCII,
)
_CASE = re.compile(
    rf"      - \{{kv_len: ({_NUMBER})(?:, shape: ({_SHAPE}))?, weight: ({_NUMBER}), "
    rf"latency_us: ({_NUMBER}), default_us: ({_NUMBER}), speedup: ({_SPEEDUP})\}}",
    re.ASCII,
)
_PART = re.compile(rf"([a-z_]+): (?:({_NUMBER})|([a-z][a-z0-9_-]*))(?:, |$)", re.ASCII)
_EACH_NUMBER = re.compile(rf"([a-z]+): ({_NUMBER})", re.ASCII)
_OTHER_LINE_ENDS = re.compile("[\r\x85\u2028\u2029]")
# YAML 1.1 reads these as other things than words.
_NO_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


class _Unusual(Exception):
    """Something is spelled otherwise."""


def as_written(text: str, parse: Callable[[str], Any]) -> dict[str, Any] | None:
    """The data of a table; None where it is not spelled as this program spells it.

    Args:
        text: the file.
        parse: the YAML parser, for the header and for notes; it raises InputError.
    """
    head, mark, below = text.partition("\nentries:\n")
    if not mark or not below or len(text) > MOST_CHARACTERS or _OTHER_LINE_ENDS.search(text):
        return None
    try:
        data = parse(f"{head}\n")
        entries = _Entries(parse).read(below)
    except (_Unusual, InputError):
        return None
    is_mapping = isinstance(data, dict) and "entries" not in data
    return data | {"entries": entries} if is_mapping else None


class _Entries:
    """The entries below a header, and what their values were the last time they were met."""

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self._parse = parse
        self._plans: dict[str, Any] = {}
        self._notes: dict[str, Any] = {}
        others: dict[str, Callable[[str], Any]] = {
            "plan": self._plan,
            "unproven": self._plan,
            "default_plan": self._plan,
            "ties": self._ties,
            "holds_ragged": lambda _: True,
            "served": _numbers,
            "speedup": _numbers,
            "note": self._note,
        }
        fields = [(name, others.get(name, _number)) for name in _FIELDS]
        self._readers: list[tuple[str, Callable[[str], Any]]]
        self._readers = [("shape", str), *fields, ("cases", _cases)]

    def read(self, text: str) -> list[dict[str, Any]]:
        entries, at = [], 0
        while at < len(text):
            match = _ENTRY.match(text, at)
            if match is None:
                raise _Unusual
            values = zip(self._readers, match.groups(), strict=True)
            entries.append({name: read(told) for (name, read), told in values if told is not None})
            at = match.end()
        return entries

    def _plan(self, text: str) -> Any:
        """A mapping of knobs of its own each time, as a parser gives it."""
        known = self._plans.get(text)
        if known is None:
            known = self._plans[text] = "default" if text == "default" else _mapping(text)
        return known if isinstance(known, str) else dict(known)

    def _ties(self, text: str) -> list[Any]:
        plans = text[1:-1].replace("}, ", "}\n").replace("default, ", "default\n").split("\n")
        return [self._plan(plan) for plan in plans]

    def _note(self, text: str) -> Any:
        if text not in self._notes:
            self._notes[text] = self._parse(f"note: {text}\n")["note"]
        return self._notes[text]


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _numbers(text: str) -> dict[str, int | float]:
    return {name: _number(value) for name, value in _EACH_NUMBER.findall(text)}


def _mapping(text: str) -> dict[str, Any]:
    if text[:1] != "{" or text[-1:] != "}":
        raise _Unusual
    inner, at = text[1:-1], 0
    found: dict[str, Any] = {}
    while at < len(inner):
        match = _PART.match(inner, at)
        if match is None or match[1] in found or _NO_WORDS & {match[1], match[3]}:
            raise _Unusual
        found[match[1]] = match[3] if match[2] is None else _number(match[2])
        at = match.end()
    if not found or inner.endswith(" "):
        raise _Unusual
    return found


def _cases(text: str) -> list[dict[str, Any]]:
    return [_case(line) for line in text[:-1].split("\n")]


def _case(line: str) -> dict[str, Any]:
    match = _CASE.fullmatch(line)
    if match is None:
        raise _Unusual
    kv_len, shape, weight, latency_us, default_us, speedup = match.groups()
    named = {} if shape is None else {"shape": shape}
    return named | {
        "kv_len": _number(kv_len),
        "weight": _number(weight),
        "latency_us": _number(latency_us),
        "default_us": _number(default_us),
        "speedup": _numbers(speedup),
    }
