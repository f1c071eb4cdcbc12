from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.errors import InputError
from mla_tune.files import yaml_events
from mla_tune.files.document import MOST_BYTES, Document, Kind

PATH = Path("a.yaml")
SHAPES = Kind("shapes file", may_refer=True)
TABLE = Kind("table")
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


def parse(text, kind=SHAPES):
    return Document.parse(PATH, text, kind)


def message(text, kind=SHAPES):
    with pytest.raises(InputError) as caught:
        parse(text, kind)
    return str(caught.value)


@given(st.dictionaries(st.text(max_size=5), values, min_size=1, max_size=4), st.booleans())
def test_the_data_is_what_pyyaml_reads(data, flow):
    text = yaml.safe_dump(data, default_flow_style=flow)
    assert parse(text).data == yaml.safe_load(text)


@given(st.text() | st.text(alphabet="ab:-[]{}\"'|>&*!?#, \n\t0", max_size=60))
def test_any_text_is_read_or_refused_but_never_crashes(text):
    try:
        parse(text)
        refused = ""
    except InputError as error:
        refused = error.what
    assert not refused or "a.yaml" in refused


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- a\n- b\n", "holds a list, not a mapping"),
        ("just words\n", "holds a str, not a mapping"),
        ("a: 1\nb: 2\na: 3\n", "a.yaml:3: key 'a' stands twice"),
        ("x:\n  b: 1\n  b: 2\n", "a.yaml:3: key 'b' stands twice"),
        ("a: [1, 2\nb: 3\n", "not valid YAML"),
        ("a: 1\n\tb: 2\n", "a.yaml:2: not valid YAML"),
        ("? [1, 2]\n: 3\n", "a.yaml:1: a key must be a word or a number"),
        ("a: &x [*x]\n", "a.yaml:1: *x refers to nothing above it"),
        ("a: 1\n---\nb: 2\n", "a.yaml:2: not valid YAML: a second document"),
        ("a: " + "[" * 33, "a.yaml:1: nested too deeply"),
        ("a: !!python/name:os.system word\n", "not valid YAML"),
    ],
)
def test_what_is_no_document_is_refused_by_line(text, says):
    assert says in message(text)


@pytest.mark.parametrize(
    "value", ["2024-13-45", "!!int word", "!!bool word", "!!timestamp word", "9" * 5000]
)
def test_a_value_that_yaml_cannot_make_sense_of_is_refused_by_line(value):
    assert "a.yaml:2" in message(f"a: 1\nb: {value}\n")


def test_where_names_the_line_of_a_key_or_of_what_is_nearest_to_it():
    document = parse("model: x\ngrids:\n  - batch_sizes: [1]\n    kv_lens:\n      - 4k\n")
    assert document.where(("model",)) == "a.yaml:1"
    assert document.where(("grids", 0, "kv_lens", 0)) == "a.yaml:5"
    assert document.where(("grids", 0, "query_lens")) == "a.yaml:3"
    assert document.where(("elsewhere",)) == "a.yaml:1"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"shapes file .*absent\.yaml does not exist"):
        Document.load(tmp_path / "absent.yaml", SHAPES)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        Document.load(tmp_path, SHAPES)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00model")
    with pytest.raises(InputError, match="cannot be read"):
        Document.load(path, SHAPES)


@pytest.mark.parametrize(
    ("spelling", "yaml_reads"),
    [("010", "8"), ("-017", "-15"), ("0_7", "7"), ("1:30", "90"), ("1:30.5", "90.5")],
)
def test_a_number_that_yaml_reads_as_nobody_means_it_is_refused(spelling, yaml_reads):
    assert str(yaml.safe_load(spelling)) == yaml_reads
    for text in (f"a: 1\nb: [2, {spelling}]\n", f"a: 1\n{spelling}: 2\n"):
        assert f"a.yaml:2: {spelling} is {yaml_reads} in YAML" in message(text)


def test_other_numbers_are_read_as_yaml_has_them():
    text = "a: [0, -1, +3, 1_000, 0x1f, 0.5, 00.5, .5, 1.0e+3, -.inf, '010', 08, 0o10, q1:2]\n"
    assert parse(text).data == yaml.safe_load(text)


def test_merge_keys_and_references_are_read_where_people_write():
    text = (
        "base: &base {a: 1, b: 2}\nother: &other {b: 3, c: 4}\n"
        "one: {<<: *base, b: 5}\ntwo:\n  <<: [*base, *other]\nthree: *base\n"
    )
    assert parse(text).data == yaml.safe_load(text)


@pytest.mark.parametrize("text", ["a: &x 1\nb: *x\n", "a: &x {c: 1}\nb: {<<: *x}\n"])
def test_a_table_has_no_references(text):
    assert "a.yaml:2: a table has no references (*x)" in message(text, TABLE)


def bomb(levels=9):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def test_references_that_stand_for_a_billion_values_are_refused():
    assert "a.yaml:2: a table has no references" in message(bomb(), TABLE)
    assert "a.yaml:7: more than 3000000 values" in message(bomb())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("".join(f"k{n}: 1\n" for n in range(1001)), "a.yaml:1001: more than 1000 keys"),
        ("a:\n  - [" + "1," * 100_000 + "]\n", "a.yaml:2: holds 100001 values"),
        ("a: " + "x" * 70_000, "a.yaml:1: a text of 70000 characters"),
    ],
)
def test_more_than_any_file_of_ours_holds_is_refused(text, says):
    assert says in message(text, TABLE)


@pytest.mark.parametrize("opening", ["[", "{", "- ", "? "])
def test_a_million_levels_are_refused_at_once(opening):
    assert "a.yaml" in message("a:\n  " + opening * 1_000_000)


def test_the_slow_parser_reads_the_same(monkeypatch):
    text = bomb(3) + "b: [1, 0x1f, yes, ~, 2.5, 'x', !!str 3, 2024-01-02, \u20ac]\n"
    fast = parse(text)
    monkeypatch.setattr(yaml_events, "_LOADER", yaml.SafeLoader)
    slow = parse(text)
    assert slow.data == fast.data == yaml.safe_load(text)
    assert list(slow.lines(3)) == list(fast.lines(3))


def test_a_file_beyond_the_bound_is_refused_unread(tmp_path):
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(InputError, match=f"{MOST_BYTES + 1} bytes"):
        Document.load(path, TABLE)
