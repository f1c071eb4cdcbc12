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
MOST_OF_A_LINE = 4096
MOST_CASES = 1_000

_OTHER_LINE_ENDS = re.compile("[\r\x85\u2028\u2029]")

_NUMBER = r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,17})?"
_IS_NUMBER = re.compile(_NUMBER, re.ASCII)
_PART = re.compile(rf"([a-z_]+): (?:({_NUMBER})|([a-z][a-z0-9_-]*))(?:, |$)", re.ASCII)
_SPEEDUP = re.compile(rf"\{{median: ({_NUMBER}), low: ({_NUMBER}), high: ({_NUMBER})\}}", re.ASCII)
_CASE = re.compile(
    rf"      - \{{kv_len: ([1-9]\d{{0,11}})(?:, shape: ([0-9qsk_]+))?, weight: ({_NUMBER}), "
    rf"latency_us: ({_NUMBER}), default_us: ({_NUMBER}), speedup: (\{{[^{{}}]*\}})\}}",
    re.ASCII,
)
_SHAPE = re.compile(r"\d*q[0-9qsk_]*(?:\{[0-9k,]+\})?", re.ASCII)
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
    if not mark or not below.endswith("\n") or len(text) > MOST_CHARACTERS:
        return None
    if _OTHER_LINE_ENDS.search(text):
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
        self._readers: dict[str, Callable[[str], Any]] = {
            "weight": _number,
            "plan": self._plan,
            "unproven": self._plan,
            "default_plan": self._plan,
            "ties": self._ties,
            "holds_to": _number,
            "holds_ragged": _true,
            "latency_us": _number,
            "default_us": _number,
            "speedup": _speedup,
            "processes": _number,
            "note": self._note,
        }

    def read(self, text: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        entry: dict[str, Any] = {}
        cases: list[dict[str, Any]] | None = None
        for line in text[:-1].split("\n"):
            if len(line) > MOST_OF_A_LINE:
                raise _Unusual
            if line.startswith("      - ") and cases is not None and len(cases) < MOST_CASES:
                cases.append(_case(line))
                continue
            name, colon, value = line[4:].partition(": ")
            if line.startswith("  - shape: "):
                entry, cases = {"shape": _shape(value)}, None
                entries.append(entry)
            elif line == "    cases:" and entry and "cases" not in entry:
                cases = entry["cases"] = []
            elif line.startswith("    ") and colon and entry and name not in entry:
                reader = self._readers.get(name)
                if reader is None or cases is not None:
                    raise _Unusual
                entry[name] = reader(value)
            else:
                raise _Unusual
        if any(entry.get("cases") == [] for entry in entries):
            raise _Unusual
        return entries

    def _plan(self, text: str) -> Any:
        """A mapping of knobs of its own each time, as a parser gives it."""
        known = self._plans.get(text)
        if known is None:
            known = self._plans[text] = "default" if text == "default" else _mapping(text)
        return known if isinstance(known, str) else dict(known)

    def _ties(self, text: str) -> list[Any]:
        if text[:1] != "[" or text[-1:] != "]":
            raise _Unusual
        plans = text[1:-1].replace("}, ", "}\n").replace("default, ", "default\n").split("\n")
        return [self._plan(plan) for plan in plans]

    def _note(self, text: str) -> Any:
        if text not in self._notes:
            self._notes[text] = self._parse(f"note: {text}\n")["note"]
        return self._notes[text]


def _number(text: str) -> int | float:
    if not _IS_NUMBER.fullmatch(text):
        raise _Unusual
    return _converted(text)


def _converted(number: str) -> int | float:
    return float(number) if "." in number else int(number)


def _true(text: str) -> bool:
    if text != "true":
        raise _Unusual
    return True


def _shape(text: str) -> str:
    if not _SHAPE.fullmatch(text):
        raise _Unusual
    return text


def _mapping(text: str) -> dict[str, Any]:
    if text[:1] != "{" or text[-1:] != "}":
        raise _Unusual
    inner, at, found = text[1:-1], 0, {}
    while at < len(inner):
        match = _PART.match(inner, at)
        if match is None or match[1] in found or _NO_WORDS & {match[1], match[3]}:
            raise _Unusual
        found[match[1]] = match[3] if match[2] is None else _converted(match[2])
        at = match.end()
    if not found or inner.endswith(" "):
        raise _Unusual
    return found


def _speedup(text: str) -> dict[str, Any]:
    match = _SPEEDUP.fullmatch(text)
    if match is None:
        raise _Unusual
    return dict(zip(("median", "low", "high"), map(_converted, match.groups()), strict=True))


def _case(line: str) -> dict[str, Any]:
    match = _CASE.fullmatch(line)
    if match is None:
        raise _Unusual
    kv_len, shape, weight, latency_us, default_us, speedup = match.groups()
    case: dict[str, Any] = {"kv_len": int(kv_len)}
    if shape is not None:
        case["shape"] = _shape(shape)
    case["weight"] = _converted(weight)
    case["latency_us"] = _converted(latency_us)
    case["default_us"] = _converted(default_us)
    case["speedup"] = _speedup(speedup)
    return case
