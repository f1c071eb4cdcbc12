import errno
import os
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from fake_device import ENVIRONMENT
from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.files.document import Document
from mla_tune.plan.plan import Plan
from mla_tune.shapes import BatchShape, MlaDimensions, RequestGroup
from mla_tune.table import (
    CaseResult,
    Entry,
    Header,
    Publication,
    Speedup,
    TableFile,
    merge,
    publication,
)
from mla_tune.table.layout import Layout
from mla_tune.table.publication import _merged
from mla_tune.table.store import TABLE

HEADER = Header.of(ENVIRONMENT, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 4096)
PATH = Path("t.yaml")
NO_SPEEDUP = Speedup(median=1.0, low=1.0, high=1.0)

plans = st.none() | st.fixed_dictionaries(
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
    return _merged(PATH, read(text) if text else None, HEADER, new).document.text


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


def test_a_table_that_is_true_for_something_else_is_left_alone(tmp_path):
    path = tmp_path / "t.yaml"
    merge(path, HEADER, [entry("q1s1k")])
    before = path.read_bytes()
    other = HEADER.model_copy(update={"kv_cache_dtype": "fp8"})
    with pytest.raises(InputError) as caught:
        merge(path, other, [entry("q1s2k")])
    assert "kv_cache_dtype auto, this run is for fp8" in caught.value.what
    assert "--replace" in caught.value.remedy
    assert path.read_bytes() == before


def _full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_table_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "t.yaml"
    merge(path, HEADER, [entry("q1s1k")])
    before, files = path.read_bytes(), sorted(tmp_path.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", _full)
        with pytest.raises(EnvironmentFailure, match="No space left"):
            merge(path, HEADER, [entry("q1s2k")])
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == files
    merge(path, HEADER, [entry("q1s2k")])
    assert len(TableFile.load(path).entries) == 2


def test_a_table_that_is_a_link_is_still_one_after_a_merge(tmp_path):
    real, link = tmp_path / "real.yaml", tmp_path / "t.yaml"
    merge(real, HEADER, [entry("q1s1k")])
    link.symlink_to(real)
    merge(link, HEADER, [entry("q1s2k")])
    assert link.is_symlink()
    assert len(TableFile.load(real).entries) == 2


def test_a_table_locked_for_too_long_is_an_error_that_names_the_lock(tmp_path, monkeypatch):
    path = tmp_path / "t.yaml"

    def impatient(lock_path, timeout):
        del timeout
        return FileLock(lock_path, timeout=0)

    monkeypatch.setattr(publication, "FileLock", impatient)
    held = FileLock(tmp_path / ".t.yaml.lock", is_singleton=False)
    with held, pytest.raises(EnvironmentFailure) as caught:
        merge(path, HEADER, [])
    assert ".t.yaml.lock" in caught.value.remedy


def shapes_in(path) -> list[str]:
    return [entry.shape for entry in TableFile.load(path).entries]


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def slow_disk(monkeypatch, clock):
    """Every write takes a second of the clock; returns the texts written."""
    written, write = [], publication.write_atomically

    def slow(path, text):
        clock.now += 1.0
        written.append(text)
        write(path, text)

    monkeypatch.setattr(publication, "write_atomically", slow)
    return written


def test_the_first_entry_is_due_at_once_and_others_by_what_a_write_costs(
    tmp_path, clock, slow_disk
):
    table = Publication(tmp_path / "t.yaml", HEADER, clock)
    assert table.is_due
    table.write([entry("q1s1k")])
    assert len(slow_disk) == 1
    clock.now += publication.PACE - 0.1
    assert not table.is_due
    clock.now += 0.2
    assert table.is_due


def test_a_table_that_nobody_else_changes_is_read_once(tmp_path, monkeypatch):
    path = tmp_path / "t.yaml"
    merge(path, HEADER, [entry("q1s1k")])
    loads, load = [], TableFile.load
    monkeypatch.setattr(TableFile, "load", lambda path: (loads.append(path), load(path))[1])
    table = Publication(path, HEADER)
    for shape in ("q1s2k", "q1s3k", "q1s4k"):
        table.write([entry(shape)])
    assert len(loads) == 1
    assert shapes_in(path) == ["q1s1k", "q1s2k", "q1s3k", "q1s4k"]


def test_runs_that_share_a_table_lose_nothing_of_each_other(tmp_path):
    path = tmp_path / "t.yaml"
    one, other = Publication(path, HEADER), Publication(path, HEADER)
    for number in range(1, 5):
        one.write([entry(f"q1s{number}k")])
        other.write([entry(f"2q1s{number}k")])
    assert len(shapes_in(path)) == 8


def test_a_hand_that_edits_the_table_during_a_run_is_respected(tmp_path):
    path = tmp_path / "t.yaml"
    table = Publication(path, HEADER)
    table.write([entry("q1s1k")])
    path.write_text(path.read_text() + "# mine\n")
    table.write([entry("q1s2k")])
    assert path.read_text().endswith("# mine\n")
    assert shapes_in(path) == ["q1s1k", "q1s2k"]


def test_a_table_removed_during_a_run_is_begun_anew(tmp_path):
    path = tmp_path / "t.yaml"
    table = Publication(path, HEADER)
    table.write([entry("q1s1k")])
    path.unlink()
    table.write([entry("q1s2k")])
    assert shapes_in(path) == ["q1s2k"]


def test_what_the_table_says_already_is_not_written_again(tmp_path, clock, slow_disk):
    path = tmp_path / "t.yaml"
    for _ in range(3):
        Publication(path, HEADER, clock).write([entry("q1s1k")])
    assert len(slow_disk) == 1


def test_a_table_with_anchors_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "t.yaml"
    merge(path, HEADER, [entry("q1s1k")])
    row = "  - shape: {}\n    plan: {}\n    latency_us: 5\n"
    text = (
        path.read_text()
        + row.format("2q1s1k", "&p {num_kv_splits: 4}")
        + row.format("3q1s1k", "*p")
    )
    path.write_text(text)
    with pytest.raises(InputError, match=r"t\.yaml:\d+: a table has no references \(\*p\)"):
        merge(path, HEADER, [entry("4q1s1k")])
    assert path.read_text() == text


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
    monkeypatch.setattr(publication, "entry_text", lambda entry: f"  - shape: {entry.shape}\n")
    with pytest.raises(InputError, match="cannot be spelled so that it reads back"):
        merge(path, HEADER, [entry("q1s2k")])
    assert path.read_bytes() == before


def test_a_lock_that_is_a_planted_link_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".t.yaml.lock").symlink_to(victim)
    with pytest.raises(EnvironmentFailure):
        merge(tmp_path / "t.yaml", HEADER, [])
    assert victim.read_text() == "mine"


def test_a_new_table_keeps_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        merge(tmp_path / "t.yaml", HEADER, [])
    finally:
        os.umask(before)
    assert (tmp_path / "t.yaml").stat().st_mode & 0o777 == 0o640


def test_writing_takes_a_twentieth_of_a_run_however_long_the_table(tmp_path, monkeypatch, clock):
    spent, write = [], publication.write_atomically

    def write_by_size(path, text):
        spent.append(0.1 * text.count("- shape:"))
        clock.now += spent[-1]
        write(path, text)

    monkeypatch.setattr(publication, "write_atomically", write_by_size)
    path = tmp_path / "t.yaml"
    table, waiting = Publication(path, HEADER, clock), []
    for number in range(2, 202):
        clock.now += 1.0  # what an entry takes to tune
        waiting.append(entry(f"{number}q1s1k"))
        if table.is_due:
            table.write(waiting)
            waiting = []
    table.write(waiting)
    assert sum(spent[:-1]) <= 200 / publication.PACE + spent[-2]
    assert len(shapes_in(path)) == 200


def test_an_entry_that_no_reader_would_take_is_refused_with_the_reader_s_reason(tmp_path):
    wrong = Entry(shape="8q1s1k", plan=Plan(num_kv_splits=10**9), latency_us=1.0, default_us=2.0)
    with pytest.raises(InputError, match=r"num_kv_splits .*1000000000"):
        merge(tmp_path / "t.yaml", HEADER, [wrong])
    assert not (tmp_path / "t.yaml").exists()
