"""Reading a table as `mla_tune.table.text` spells it, without a YAML parser and without a schema.

A table of 5,000 entries takes libyaml's events and Python a second, and pydantic a tenth of one;
most tables are as they were written. What is spelled in any other way, by a single character, or
would not pass the schema is left to them: this answers with the same entries, or not at all.
"""

__all__ = ["Written", "as_written"]

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from mla_tune.errors import InputError
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes import BatchShape, Workload
from mla_tune.shapes.batch import LONGEST_KV_LEN
from mla_tune.shapes.served_reach import ServedReach
from mla_tune.table.entry import CaseResult, Entry, Speedup

# Beyond these the parser reads, which knows how much of what is too much.
MOST_CHARACTERS = 8 * 2**20
MOST_CASES = 1_000
_LINE = r"[^\n]{1,4096}"

_NUMBER = r"(?:0|[1-9]\d{0,14})(?:\.\d{1,17})?"
_COUNT = r"[1-9]\d{0,14}"
_SHAPE = r"\d{0,9}q[0-9qsk_]{1,2000}(?:\{[0-9k,]{1,2000}\})?"
_SPEEDUP = rf"\{{median: -?{_NUMBER}, low: -?{_NUMBER}, high: -?{_NUMBER}\}}"

# In the order in which they are written; each may be absent.
_FIELDS = {
    "weight": _NUMBER,
    "plan": _LINE,
    "unproven": _LINE,
    "default_plan": _LINE,
    "ties": rf"\[{_LINE}\]",
    "holds_to": _COUNT,
    "holds_ragged": "true",
    "served": rf"\{{to: {_COUNT}, beyond: {_NUMBER}\}}",
    "latency_us": _NUMBER,
    "default_us": _NUMBER,
    "speedup": _SPEEDUP,
    "processes": _COUNT,
    "note": _LINE,
}
_ENTRY = re.compile(
    rf"  - shape: ({_SHAPE})\n"
    + "".join(rf"(?:    {name}: ({value})\n)?" for name, value in _FIELDS.items())
    + rf"(?:    cases:\n((?:      - {_LINE}\n){{1,{MOST_CASES}}}))?",
    re.ASCII,
)
_CASE = re.compile(
    rf"      - \{{kv_len: ({_COUNT})(?:, shape: ({_SHAPE}))?, weight: ({_NUMBER}), "
    rf"latency_us: ({_NUMBER}), default_us: ({_NUMBER}), speedup: ({_SPEEDUP})\}}",
    re.ASCII,
)
_PART = re.compile(rf"([a-z_]+): (?:(-?{_NUMBER})|([a-z][a-z0-9_-]*))(?:, |$)", re.ASCII)
_OTHER_LINE_ENDS = re.compile("[\r\x85\u2028\u2029]")
# YAML 1.1 reads these as other things than words.
_NO_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}

Model = TypeVar("Model", bound=BaseModel)


class _Unusual(Exception):
    """Something is spelled otherwise, or says what a schema may refuse."""


class Written(NamedTuple):
    """What stands in a table: its header as plain data, its entries, and every plan of these."""

    header: dict[str, Any]
    entries: tuple[Entry, ...]
    plans: Iterable[Plan]


def as_written(text: str, parse: Callable[[str], Any]) -> Written | None:
    """The contents of a table; None where it is not spelled as this program spells it.

    Args:
        text: the file.
        parse: the YAML parser, for the header and for notes; it raises InputError.
    """
    head, mark, below = text.partition("\nentries:\n")
    if not mark or not below or len(text) > MOST_CHARACTERS or _OTHER_LINE_ENDS.search(text):
        return None
    reader = _Entries(parse)
    try:
        header = parse(f"{head}\n")
        entries = tuple(reader.read(below))
    except (_Unusual, InputError):
        return None
    is_mapping = isinstance(header, dict) and "entries" not in header
    return Written(header, entries, reader.plans.values()) if is_mapping else None


class _Entries:
    """The entries below a header, and what their values were the last time they were met."""

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self._parse = parse
        self.plans: dict[str, Plan] = {"default": UNTUNED}
        self._ties: dict[str, tuple[Plan, ...]] = {}
        self._notes: dict[str, str] = {}
        self._query_lens: dict[str, int] = {}
        self._kv_lens: dict[str, int] = {}
        others: dict[str, Callable[[str], Any]] = {
            "plan": self._plan,
            "unproven": lambda text: self._plan(text) or None,
            "default_plan": self._plan,
            "ties": self._tied,
            "holds_to": _kv_len,
            "holds_ragged": lambda _: True,
            "served": _served,
            "speedup": _speedup,
            "processes": int,
            "note": self._note,
        }
        fields = [(name, others.get(name, float)) for name in _FIELDS]
        self._readers: list[tuple[str, Callable[[str], Any]]]
        self._readers = [("shape", self._shape), *fields, ("cases", _cases)]
        self._absent = {name: field.default for name, field in Entry.model_fields.items()}

    def read(self, text: str) -> Iterable[Entry]:
        at = 0
        while at < len(text):
            match = _ENTRY.match(text, at)
            if match is None:
                raise _Unusual
            values = zip(self._readers, match.groups(), strict=True)
            yield self._entry(
                {name: read(told) for (name, read), told in values if told is not None}
            )
            at = match.end()

    def _entry(self, given: dict[str, Any]) -> Entry:
        """What the schema makes of an entry that it takes as it is; see `Entry`."""
        plan, latency_us, default_us = map(given.get, ("plan", "latency_us", "default_us"))
        if plan is None or not latency_us or default_us == 0:
            raise _Unusual
        if plan and (default_us is None or given.get("unproven") is not None):
            raise _Unusual
        if "holds_to" in given and given["holds_to"] < _longest(given["shape"]):
            raise _Unusual
        return _made(Entry, set(given), self._absent | given)

    def _shape(self, text: str) -> str:
        """Refuse what is no key of a table. Uniform batches share their halves, 32q1 and s4k."""
        batch, mark, kv_len = text.partition("s")
        if not mark or not kv_len.isalnum():
            Workload.parse(text)
            return text
        if batch not in self._query_lens:
            self._query_lens[batch] = _longest(batch)
        if kv_len not in self._kv_lens:
            self._kv_lens[kv_len] = _longest(f"q1s{kv_len}")
        if self._query_lens[batch] >= self._kv_lens[kv_len]:
            raise _Unusual
        return text

    def _plan(self, text: str) -> Plan:
        known = self.plans.get(text)
        if known is None:
            known = self.plans[text] = Plan.from_dict(_mapping(text))
        return known

    def _tied(self, text: str) -> tuple[Plan, ...]:
        known = self._ties.get(text)
        if known is None:
            each = text[1:-1].replace("}, ", "}\n").replace("default, ", "default\n").split("\n")
            known = self._ties[text] = tuple(map(self._plan, each))
        return known

    def _note(self, text: str) -> str:
        if text not in self._notes:
            note = self._parse(f"note: {text}\n")["note"]
            if not isinstance(note, str):
                raise _Unusual
            self._notes[text] = note
        return self._notes[text]


def _longest(shape: str) -> int:
    """The longest KV length of a table's key."""
    return max(each.max_kv_len for each in Workload.parse(shape).shapes)


def _mapping(text: str) -> dict[str, Any]:
    if text[:1] != "{" or text[-1:] != "}":
        raise _Unusual
    inner, at = text[1:-1], 0
    found: dict[str, Any] = {}
    while at < len(inner):
        match = _PART.match(inner, at)
        if match is None or match[1] in found or _NO_WORDS & {match[1], match[3]}:
            raise _Unusual
        number = match[2]
        found[match[1]] = match[3] if number is None else _number(number)
        at = match.end()
    if not found or inner.endswith(" "):
        raise _Unusual
    return found


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _kv_len(text: str) -> int:
    if int(text) > LONGEST_KV_LEN:
        raise _Unusual
    return int(text)


def _served(text: str) -> ServedReach:
    words = text[1:-1].replace(",", "").split(" ")
    to, beyond = int(words[1]), float(words[3])
    if to >= 2**31 or beyond >= 1:
        raise _Unusual
    return _made(ServedReach, {"to", "beyond"}, {"to": to, "beyond": beyond})


def _speedup(text: str) -> Speedup:
    _, median, _, low, _, high = text[1:-1].replace(",", "").split(" ")
    values = {"median": float(median), "low": float(low), "high": float(high)}
    return _made(Speedup, {"median", "low", "high"}, values)


def _cases(text: str) -> tuple[CaseResult, ...]:
    return tuple(map(_case, text[:-1].split("\n")))


def _case(line: str) -> CaseResult:
    match = _CASE.fullmatch(line)
    if match is None:
        raise _Unusual
    kv_len, shape, weight, latency_us, default_us, speedup = match.groups()
    if shape is not None:
        BatchShape.parse(shape)
    if float(latency_us) <= 0 or float(default_us) <= 0:
        raise _Unusual
    values: dict[str, Any] = {
        "kv_len": _kv_len(kv_len),
        "shape": shape,
        "weight": float(weight),
        "latency_us": float(latency_us),
        "default_us": float(default_us),
        "speedup": _speedup(speedup),
    }
    return _made(CaseResult, values.keys() - ({"shape"} if shape is None else set()), values)


_set = object.__setattr__


def _made(model: type[Model], given: set[str], values: dict[str, Any]) -> Model:
    """What `model_construct` makes of values for all fields, in a quarter of its time."""
    made = model.__new__(model)
    _set(made, "__dict__", values)
    _set(made, "__pydantic_fields_set__", given)
    _set(made, "__pydantic_extra__", None)
    _set(made, "__pydantic_private__", None)
    return made
