import errno
import os
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from fake_device import ENVIRONMENT
from mla_tune.document import Document
from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.knobs import Plan
from mla_tune.shapes import BatchShape, MlaDimensions, RequestGroup
from mla_tune.table import CaseResult, Entry, Header, Speedup, TableFile, merge, publication
from mla_tune.table.layout import Layout
from mla_tune.table.publication import _merged
from mla_tune.table.store import TABLE

HEADER = Header.of(ENVIRONMENT, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 4096)
PATH = Path("t.yaml")
NO_SPEEDUP = Speedup(median=1.0, low=1.0, high=1.0)

plans = st.none() | st.builds(
    Plan,
    st.none() | st.integers(1, 99),
    st.none() | st.integers(1, 99),
    st.none() | st.sampled_from(["sdpa_flash", "sdpa_math"]),
).filter(lambda plan: plan != Plan())
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


BAD = {
    "no version": ("backend: X\n", "not an mla-tune table: schema_version is None"),
    "newer": ("schema_version: 99\n", ":1: table of schema version 99"),
    "a word for a version": ("schema_version: new\n", "schema_version is 'new'"),
    "true for a version": ("schema_version: true\n", "schema_version is True"),
    "no header": ("schema_version: 1\nentries: []\n", "backend"),
    "entries are no list": ("schema_version: 1\nentries: {}\n", ":2: entries is {}"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_table_is_refused(tmp_path, case):
    text, says = BAD[case]
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        TableFile.load(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{shape: q1s1024, plan: default, latency_us: 1}", ":10: entries.0.shape"),
        ("{shape: q1s1k, plan: {splits: 1}, latency_us: 1}", ":10: entries.0.plan: unknown knob"),
        ("{shape: q1s1k, plan: default}", ":10: entries.0.latency_us"),
        ("{shape: q1s1k, plan: default, latency_us: 1, bogus: 1}", ":10: entries.0.bogus"),
        ("just words", ":10: entries.0"),
        (
            "{shape: q1s1k, plan: default, latency_us: 1}\n"
            "  - {shape: q1s1k, plan: default, latency_us: 2}",
            ":11: shape q1s1k has two entries",
        ),
    ],
)
def test_a_wrong_entry_is_refused_by_line(row, says):
    with pytest.raises(InputError) as caught:
        read(merged("", []) + f"  - {row}\n")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("plan: {num_kv_splits: 1000000000}", "entries.0.plan.num_kv_splits"),
        ("plan: {num_kv_splits: -5}", "entries.0.plan.num_kv_splits"),
        ("plan: {reorder_batch_threshold: 2147483648}", "entries.0.plan.reorder_batch_threshold"),
        ("plan: {prefill_backend: fa3}", "entries.0.plan.prefill_backend"),
        ("plan: default, default_plan: {num_kv_splits: 0}", "entries.0.default_plan.num_kv_splits"),
        ("plan: default, ties: [default, {num_kv_splits: 0}]", "entries.0.ties.1.num_kv_splits"),
    ],
)
def test_a_plan_out_of_bounds_is_refused_by_line(row, says):
    with pytest.raises(InputError) as caught:
        read(merged("", []) + f"  - {{shape: q1s1k, {row}, latency_us: 1, default_us: 1}}\n")
    assert f":10: {says}: TORCH_MLA cannot have " in caught.value.what
    assert caught.value.valid


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("backend: TORCH_MLA", "backend: TORCH_MLB", ":2: backend: backend 'TORCH_MLB' is not"),
        ("num_q_heads: 2", "num_q_heads: 0", ":4: model.num_q_heads"),
        ("num_q_heads: 2", "num_q_heads: 1000000", ":4: model.num_q_heads"),
        ("num_q_heads: 2, ", "", ":4: model: it gives kv_lora_rank"),
        ("kv_lora_rank: 512", "kv_lora_rank: -512", ":4: model.kv_lora_rank"),
        ("sm_count: 2", "sm_count: 0", ":3: device.sm_count"),
        ("sm_count: 2", "sm_count: 2, compute_capability: ninety", ":3: device.compute_capability"),
        ("max_model_len: 4096", "max_model_len: 0", ":7: engine.max_model_len"),
        ("max_model_len: 4096", f"max_model_len: {2**40}", ":7: engine.max_model_len"),
    ],
)
def test_a_header_of_no_engine_is_refused_by_line(before, after, says):
    text = merged("", [])
    assert before in text
    with pytest.raises(InputError) as caught:
        read(text.replace(before, after))
    assert says in caught.value.what


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
