"""Tables as this program spells them are read without a parser, to the same data or not at all."""

from pathlib import Path

import pytest

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


def parsed(text):
    return Document.parse(PATH, text, TABLE).data


def typed(value):
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    return [typed(item) for item in value] if isinstance(value, list) else (type(value), value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_table_is_read_as_the_parser_reads_it(path):
    text = path.read_text()
    assert typed(as_written(text, parsed)) == typed(parsed(text))


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
    assert typed(as_written(TEXT, parsed)) == typed(parsed(TEXT))
    assert TableFile.from_document(Document(PATH, TEXT, as_written(TEXT, parsed))).entries == (
        ENTRY,
        UNPROVEN,
    )


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
    assert as_written(TEXT.replace(old, new), parsed) is None


def test_no_byte_may_change_what_is_read():
    """Of a text with one character replaced: the same data as the parser's, or none."""
    read = 0
    for place in range(0, len(TEXT), 7):
        for character in "0 -:{}[],'#\nx&*":
            text = TEXT[:place] + character + TEXT[place + 1 :]
            found = as_written(text, parsed)
            if found is not None:
                assert typed(found) == typed(parsed(text)), (place, character)
                read += 1
    assert read > 300
