from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.document import Document
from mla_tune.errors import InputError

PATH = Path("a.yaml")
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


def parse(text):
    return Document.parse(PATH, text, what="shapes file")


def message(text):
    with pytest.raises(InputError) as caught:
        parse(text)
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
        ("a: &x [*x]\n", "nested too deeply"),
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
        Document.load(tmp_path / "absent.yaml", what="shapes file")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        Document.load(tmp_path, what="shapes file")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00model")
    with pytest.raises(InputError, match="cannot be read"):
        Document.load(path, what="shapes file")
