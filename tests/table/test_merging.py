from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_device import ENVIRONMENT
from mla_tune.errors import InputError
from mla_tune.files.document import Document
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes import BatchShape, MlaDimensions, RequestGroup
from mla_tune.shapes.served_reach import ServedReach
from mla_tune.table import (
    CaseResult,
    Entry,
    Header,
    Speedup,
    TableFile,
    merge,
    merging,
)
from mla_tune.table.layout import Layout
from mla_tune.table.merging import merged_table
from mla_tune.table.store import TABLE

HEADER = Header.of(ENVIRONMENT, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 4096)
PATH = Path("t.yaml")

plans = st.just(UNTUNED) | st.fixed_dictionaries(
    {},
    optional={
        "reorder_batch_threshold": st.integers(1, 99),
        "num_kv_splits": st.integers(1, 99),
        "prefill_backend": st.sampled_from(["sdpa_flash", "sdpa_math"]),
    },
).filter(bool).map(Plan.from_dict)
figures = st.integers(1, 9999).map(float)
shapes = st.builds(
    lambda query_len, context, count: str(
        BatchShape.of([RequestGroup(query_len, query_len + context, count)])
    ),
    st.integers(1, 5),
    st.integers(0, 4000),
    st.integers(1, 5),
)
speedups = st.builds(Speedup, median=figures, low=figures, high=figures)
cases = st.builds(
    CaseResult,
    kv_len=st.integers(1, 99),
    weight=figures,
    latency_us=figures,
    default_us=figures,
    speedup=speedups,
)
entries = st.builds(
    Entry,
    shape=shapes,
    weight=figures,
    plan=plans,
    default_plan=plans,
    ties=st.lists(plans, max_size=2).map(tuple),
    latency_us=figures,
    default_us=st.none() | figures,
    speedup=st.none() | speedups,
    cases=st.lists(cases, max_size=2).map(tuple),
    note=st.text(max_size=30),
)
entry_lists = st.lists(entries, max_size=6, unique_by=lambda entry: entry.shape)


def entry(shape: str, latency_us: float = 10.0, **more) -> Entry:
    fields = {"latency_us": latency_us, "default_us": 20.0} | more
    return Entry(shape=shape, plan=Plan(num_kv_splits=2), **fields)


def merged(text: str, new: list[Entry]) -> str:
    """What a table of ``text`` becomes ('' for none)."""
    return merged_table(PATH, read(text) if text else None, HEADER, new).document.text


def read(text: str) -> TableFile:
    return TableFile.from_document(Document.parse(PATH, text, TABLE))


def by_shape(found) -> dict[str, Entry]:
    return {e.shape: e for e in found}


@given(entry_lists)
def test_a_table_reads_back_what_was_written(new):
    file = read(merged("", new))
    assert by_shape(file.entries) == by_shape(new)
    assert file.header == HEADER


@given(entry_lists)
def test_merging_the_same_again_changes_no_byte(new):
    text = merged("", new)
    assert merged(text, new) == text


@given(entry_lists, st.randoms())
def test_the_order_of_entries_does_not_depend_on_the_order_of_merging(new, random):
    text = ""
    for one in random.sample(new, len(new)):
        text = merged(text, [one])
    assert text == (merged("", new) if new else "")


@given(entry_lists, entry_lists)
def test_merging_replaces_what_is_new_and_keeps_what_is_not(old, new):
    text = merged(merged("", old), new)
    assert by_shape(read(text).entries) == by_shape(old) | by_shape(new)


comments = st.text(alphabet="abc #:-'\"{}[]", max_size=12).map(lambda text: "#" + text)


@st.composite
def annotated_tables(draw):
    """A table with comments and blank lines of a reader's between its lines."""
    old = draw(st.lists(entries, min_size=1, max_size=4, unique_by=lambda entry: entry.shape))
    lines = []
    for line in merged("", old).splitlines():
        if draw(st.integers(0, 3)) == 0:
            lines.append(" " * draw(st.integers(0, 6)) + draw(comments))
        if draw(st.integers(0, 6)) == 0:
            lines.append("")
        lines.append(line)
    return old, "\n".join(lines) + draw(st.sampled_from(["", "\n", "\n# the end", "\n\n"]))


@given(annotated_tables(), entry_lists)
def test_unchanged_entries_keep_every_byte_with_their_comments(table, new):
    old, text = table
    result = merged(text, new)
    assert by_shape(read(result).entries) == by_shape(old) | by_shape(new)
    before, after = (_blocks(read(some)) for some in (text, result))
    changed = {e.shape for e in new if by_shape(old).get(e.shape) != e}
    for shape in by_shape(old).keys() - changed:
        assert after[shape].rstrip("\n") == before[shape].rstrip("\n")


@given(annotated_tables())
def test_merging_nothing_new_changes_no_byte_of_a_readers_table(table):
    old, text = table
    assert merged(text, old).rstrip("\n") == text.rstrip("\n")


def _blocks(file: TableFile) -> dict[str, str]:
    return dict(zip((e.shape for e in file.entries), Layout.of(file).blocks, strict=True))


def test_a_comment_above_an_entry_stays_when_the_entry_before_it_changes():
    text = merged("", [entry("q1s1k"), entry("q1s2k")])
    noted = text.replace("  - shape: q1s2k", "  # do not touch, see #12\n  - shape: q1s2k")
    result = merged(noted, [entry("q1s1k", 99.0)])
    assert "  # do not touch, see #12\n  - shape: q1s2k" in result


def test_a_comment_above_an_entry_stays_when_the_entry_itself_changes():
    text = merged("", [entry("q1s1k"), entry("q1s2k")])
    noted = text.replace("  - shape: q1s2k", "  # the hot one\n  - shape: q1s2k")
    assert "  # the hot one\n  - shape: q1s2k" in merged(noted, [entry("q1s2k", 99.0)])


@pytest.mark.parametrize(
    "rows",
    [
        "  -\n    shape: q1s2k\n    plan: default\n    latency_us: 3\n"
        "  -\n    shape: q1s4k\n    plan: default\n    latency_us: 4\n",
        "  [{shape: q1s2k, plan: default, latency_us: 3},\n"
        "   {shape: q1s4k, plan: default, latency_us: 4}]\n",
        "  [{shape: q1s2k, plan: default, latency_us: 3}, "
        "{shape: q1s4k, plan: default, latency_us: 4}]\n",
        "- shape: q1s2k\n  plan: default\n  latency_us: 3\n"
        "- {shape: q1s4k, plan: default, latency_us: 4}\n",
        "  - shape: q1s2k\n    plan: default\n    latency_us: 3\n    note: |\n      # text\n"
        "  - &b\n    shape: q1s4k\n    plan: default\n    latency_us: 4\n...\n",
    ],
)
def test_tables_in_other_spellings_of_yaml_are_merged_too(rows):
    text = merged("", []) + rows
    result = merged(text, [entry("q1s1k"), entry("q1s3k")])
    assert [e.shape for e in read(result).entries] == ["q1s1k", "q1s2k", "q1s3k", "q1s4k"]
    assert by_shape(read(result).entries).items() >= by_shape(read(text).entries).items()


def test_a_header_below_the_entries_survives_a_merge():
    head, _, rows = merged("", [entry("q1s2k")]).partition("entries:\n")
    result = merged("entries:\n" + rows + head, [entry("q1s4k")])
    assert [e.shape for e in read(result).entries] == ["q1s2k", "q1s4k"]


def test_line_ends_of_a_readers_editor_survive_a_merge(tmp_path):
    path = tmp_path / "t.yaml"
    merge(path, HEADER, [entry("q1s1k")])
    before = path.read_bytes().replace(b"\n", b"\r\n")
    path.write_bytes(before)
    merge(path, HEADER, [entry("q1s2k")])
    assert path.read_bytes().startswith(before)


def test_entries_stand_decode_first_and_small_batches_first():
    new = [entry(shape) for shape in ("q2k", "8q1s1k", "8q1s512", "4q4s1k", "q2k_8q1s1k", "q1s9k")]
    found = [e.shape for e in read(merged("", new)).entries]
    assert found == ["q1s9k", "8q1s512", "8q1s1k", "q2k_8q1s1k", "4q4s1k", "q2k"]


def test_figures_are_rounded_to_what_a_measurement_carries():
    text = merged("", [entry("q1s1k", 12.3456789, default_us=12345.678)])
    assert "latency_us: 12.35\n" in text
    assert "default_us: 12345.7\n" in text


def test_an_entry_that_differs_only_beyond_the_rounding_is_unchanged():
    text = merged("", [entry("q1s1k", 12.3456789)])
    noted = text.replace("latency_us", "# mine\n    latency_us")
    assert merged(noted, [entry("q1s1k", 12.3456)]) == noted


SPELLINGS = {
    "a tagged list": "entries: !!seq\n  - shape: q1s1k\n    plan: default\n    latency_us: 3\n",
    "an anchored list": "entries: &all\n  - shape: q1s1k\n    plan: default\n    latency_us: 3\n",
    "explicit keys": "? entries\n:\n  - ? shape\n    : q1s1k\n    ? plan\n    : default\n"
    "    ? latency_us\n    : 3\n",
    "a note over lines": "entries:\n  - shape: q1s1k\n    plan: default\n    latency_us: 3\n"
    '    note: "one\n      - two\n      # three"\n',
    "tabs after the dash": "entries:\n  -\tshape: q1s1k\n  \tplan: default\n",
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_a_readers_spelling_is_merged_into_what_reads_back_or_refused(tmp_path, case):
    path = tmp_path / "t.yaml"
    merge(path, HEADER, [])
    path.write_text(path.read_text().replace("entries:\n", SPELLINGS[case]))
    try:
        before = TableFile.load(path).entries
    except InputError:
        return
    merge(path, HEADER, [entry("q1"), entry("q1s2k")])
    after = {entry.shape: entry for entry in TableFile.load(path).entries}
    assert sorted(after) == ["q1", "q1s1k", "q1s2k"]
    assert after["q1s1k"] == before[0]


def test_a_text_that_would_not_read_back_replaces_nothing(tmp_path, monkeypatch):
    path = tmp_path / "t.yaml"
    merge(path, HEADER, [entry("q1s1k")])
    before = path.read_bytes()
    monkeypatch.setattr(merging, "entry_text", lambda entry: f"  - shape: {entry.shape}\n")
    with pytest.raises(InputError, match="cannot be spelled so that it reads back"):
        merge(path, HEADER, [entry("q1s2k")])
    assert path.read_bytes() == before


def test_an_entry_that_no_reader_would_take_is_refused_with_the_reader_s_reason(tmp_path):
    wrong = Entry(shape="8q1s1k", plan=Plan(num_kv_splits=10**9), latency_us=1.0, default_us=2.0)
    with pytest.raises(InputError, match=r"num_kv_splits .*1000000000"):
        merge(tmp_path / "t.yaml", HEADER, [wrong])
    assert not (tmp_path / "t.yaml").exists()


def test_a_table_says_from_which_version_on_its_entries_can_be_read(tmp_path):
    path = tmp_path / "t.yaml"
    merge(path, HEADER, [entry("q1s1k")])
    before = path.read_text()
    reach = ServedReach(to=11585, beyond=0.0031234)
    by_record = entry("q1s2k").model_copy(update={"served": reach})
    merge(path, HEADER, [by_record])
    text = path.read_text()
    assert "served: {to: 11585, beyond: 0.003123}" in text
    assert text.startswith(before.replace("schema_version: 2", "schema_version: 5"))
    merge(path, HEADER, [by_record, entry("q1s4k")])
    assert TableFile.load(path).header.schema_version == 5
    assert [bool(each.served) for each in TableFile.load(path).entries] == [False, True, False]
