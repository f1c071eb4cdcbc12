"""Tables as this program spells them are read without a parser: to the same, or not at all."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from mla_tune.errors import InputError
from mla_tune.files.document import Document
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes.served_reach import ServedReach
from mla_tune.table import CaseResult, Entry, Speedup
from mla_tune.table.as_written import as_written
from mla_tune.table.store import TABLE, TableFile
from mla_tune.table.text import entry_text, header_text
from modelled_table import HEADER

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "tuned_configs").glob("*.yaml"))
PATH = Path("t.yaml")


def quick(text):
    return as_written(text, lambda part: Document.parse(PATH, part, TABLE).data)


def by_schema(text):
    return TableFile.from_document(Document.parse(PATH, text, TABLE))


def typed(value):
    """A value with the types of all that is in it, and of a model the fields that were set."""
    if isinstance(value, BaseModel):
        return type(value), value.model_fields_set, typed(dict(value))
    if isinstance(value, dict | Plan):
        return type(value), {key: typed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [typed(item) for item in value]
    return type(value), value


def outcome(read, *given):
    """What a table says, or why it is refused."""
    try:
        file = read(*given)
    except InputError as error:
        return str(error)
    return typed((file.header, file.entries, file.between))


def is_read_alike(text):
    """Whether a table is to its reader what it is to the parser and the schema."""
    return outcome(TableFile.parse, PATH, text) == outcome(by_schema, text)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_table_is_read_without_a_parser_to_the_same_entries(path):
    text = path.read_text()
    assert quick(text) is not None
    assert is_read_alike(text)


SPEEDUP = Speedup(median=2.0, low=1.9, high=2.1)
CASE = CaseResult(kv_len=1024, weight=0.5, latency_us=1.5, default_us=3.0, speedup=SPEEDUP)
RAGGED = CASE.model_copy(update={"shape": "q1s1k_7q1s64"})
PLAN = Plan(num_kv_splits=8, prefill_backend="fa3")
ENTRY = Entry(
    shape="8q1s{512,1k}",
    plan=PLAN,
    default_plan=Plan(num_kv_splits=4),
    ties=(UNTUNED, Plan(num_kv_splits=16), PLAN),
    holds_to=4096,
    holds_ragged=True,
    served=ServedReach(to=4000, beyond=0.0021),
    latency_us=1234567.8,
    default_us=0.001234,
    speedup=SPEEDUP,
    processes=3,
    cases=(CASE, RAGGED),
    note="a: 'quoted' #1 × [x]",
)
UNPROVEN = Entry(shape="q1", plan=UNTUNED, unproven=PLAN, latency_us=5.0)
TEXT = header_text(HEADER) + entry_text(ENTRY) + entry_text(UNPROVEN)


def test_all_that_an_entry_can_have_is_read():
    assert quick(TEXT).entries == (ENTRY, UNPROVEN)
    assert is_read_alike(TEXT)


OTHERWISE = {
    "a comment": ("  - shape: q1\n", "  # mine\n  - shape: q1\n"),
    "a blank line": ("  - shape: q1\n", "\n  - shape: q1\n"),
    "another indent": ("    plan:", "     plan:"),
    "CRLF": ("\n", "\r\n"),
    "a line end of Unicode": ("quoted", "quo\u2028ted"),
    "octal": ("processes: 3", "processes: 010"),
    "sexagesimal": ("processes: 3", "processes: 1:30"),
    "an exponent": ("weight: 0.5", "weight: 5.0e-1"),
    "a knob that is a truth": ("num_kv_splits: 8", "num_kv_splits: yes"),
    "a key that is a truth": ("num_kv_splits: 8", "on: 8"),
    "a key twice": ("    processes: 3\n", "    processes: 3\n    processes: 3\n"),
    "a knob twice": ("num_kv_splits: 8,", "num_kv_splits: 8, num_kv_splits: 8,"),
    "an unknown key": ("    processes: 3\n", "    procs: 3\n"),
    "a reference": ("    plan: default", "    plan: *mine"),
    "a tag": ("    processes: 3", "    processes: !!int 3"),
    "a quoted key": ("    processes: 3", "    'processes': 3"),
    "no cases": ("    cases:\n", "    cases:\n    weight: 2.0\n"),
    "another column of cases": ("      - {kv_len", "    - {kv_len"),
    "a plan over two lines": ("prefill_backend: fa3}", "\n      prefill_backend: fa3}"),
    "a key below the entries": ("latency_us: 5.0\n", "latency_us: 5.0\nquantization: none\n"),
    "entries twice": ("entries:\n", "entries: []\nentries:\n"),
    "fields in another order": (
        "    processes: 3\n",
        "    processes: 3\n    holds_to: 4096\n",
    ),
    "no line end": ("latency_us: 5.0\n", "latency_us: 5.0"),
    "a note that goes on": ("    note: ", "    note: 'more\n      "),
    "a case after another key": ("    note: ", "    weight: 1.0\n      - {}\n    note: "),
}


@pytest.mark.parametrize("what", OTHERWISE)
def test_any_other_spelling_is_left_to_the_parser(what):
    old, new = OTHERWISE[what]
    assert old in TEXT
    assert quick(TEXT.replace(old, new)) is None


def test_no_byte_may_change_what_is_read():
    """Of a text with one character replaced: the same table or refusal, or no answer."""
    read = 0
    for place in range(0, len(TEXT), 7):
        for character in "0 -:{}[],'#\nx&*":
            text = TEXT[:place] + character + TEXT[place + 1 :]
            if quick(text) is not None:
                assert is_read_alike(text), (place, character)
                read += 1
    assert read > 300


# Values in this program's spelling: such as a table may have, and others.
PLANS = ("default", "{num_kv_splits: 8}", "{num_kv_splits: 4, prefill_backend: fa3}")
NO_PLANS = ("{num_kv_splits: 999999}", "{num_kv_splits: fa3}", "{}", "{knob: 1}", "null")
POSITIVE = ("1", "2.5", "4096", "0.001234")
NOT_POSITIVE = ("0", "-1", "0.0")
VALUES = {
    "weight": (("0", *POSITIVE), ("-1", "-0.0")),
    "plan": (PLANS, NO_PLANS),
    "unproven": (("default",), (*PLANS, *NO_PLANS)),
    "default_plan": (PLANS, NO_PLANS),
    "ties": (("[default]", "[{num_kv_splits: 4}, default]"), ("[{num_warps: 3}]", "[]")),
    "holds_to": (("4096", "999999"), ("1", "4096.0", "99999999999999")),
    "holds_ragged": (("true",), ("false",)),
    "served": (
        ("{to: 4096, beyond: 0.5}",),
        ("{to: 99999999999, beyond: 0}", "{to: 1, beyond: 1}"),
    ),
    "latency_us": (POSITIVE, NOT_POSITIVE),
    "default_us": (POSITIVE, NOT_POSITIVE),
    "speedup": (("{median: 2.0, low: -1, high: 0.0}",), ("{median: 2.0}",)),
    "processes": (("1", "12"), ("0", "1.0", "-1")),
    "note": (("a note", "'it''s'", "'12'"), ("12", "null", "[x]")),
}
SHAPES = ("q1", "8q1s1k", "8q1s{1k,4k}", "2q2k_32q1s1k", "q1ks2k", "4q2s1025")
NO_SHAPES = ("8q1s1024", "4q2s2", "1q1s2k", "0q1s2k", "q4ks1k", "q1s01", "q1s{4k,1k}")
FIGURES = "default_us: 3.0, speedup: {median: 2.0, low: 1, high: 3}"
CASES = (
    f"{{kv_len: 1024, weight: 0.5, latency_us: 1.5, {FIGURES}}}",
    f"{{kv_len: 4096, shape: q1s64, weight: 0, latency_us: 0.5, {FIGURES}}}",
)
NO_CASES = (
    f"{{kv_len: 1024, weight: 0.5, latency_us: 0, {FIGURES}}}",
    f"{{kv_len: 1024, shape: q1s0, weight: 1, latency_us: 1, {FIGURES}}}",
)


@st.composite
def entries_as_written(draw):
    odd = draw(st.sampled_from([*[None] * len(VALUES), *VALUES, "shape", "cases", "absent"]))
    lines = [f"  - shape: {draw(st.sampled_from(NO_SHAPES if odd == 'shape' else SHAPES))}"]
    for name, (usual, unusual) in VALUES.items():
        is_usual = odd != "absent" and name in ("plan", "latency_us", "default_us")
        if is_usual or name == odd or draw(st.integers(0, 2)) == 0:
            value = draw(st.sampled_from(unusual if name == odd else usual))
            lines.append(f"    {name}: {value}")
    listed = st.lists(st.sampled_from(CASES + NO_CASES * (odd == "cases")), max_size=2)
    cases = draw(listed)
    lines += ["    cases:", *(f"      - {case}" for case in cases)] if cases else []
    return "\n".join(lines) + "\n"


@given(st.lists(entries_as_written(), min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_whatever_the_values_are_both_ways_agree(entries):
    assert is_read_alike(header_text(HEADER) + "".join(entries))
