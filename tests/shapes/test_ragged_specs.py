"""Ragged batches in a shapes file."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from shapes_files import refusal

from mla_tune.shapes.batch import format_size
from mla_tune.shapes.file import checked_shapes, load_shapes
from mla_tune.shapes.mapping import MappingDocument
from mla_tune.shapes.ragged import RaggedSpec, longest_of
from mla_tune.shapes.ragged_specs import MOST_SPECS

GRAPH = "engine: {modes: graph}\nbatch_specs: [8q1s1k]\nragged_specs:\n"


def test_a_spec_has_the_mean_and_names_the_longest(write):
    file = load_shapes(write(GRAPH + "- {spec: 8q4s1k, longest: 6k, share: 0.3}\n"))
    assert file.ragged.specs == (RaggedSpec(8, 4, 1024, 6144, 0.3),)
    assert file.ragged.share == 0.5
    assert [str(case.shape) for case in file.cases] == ["8q1s1k"]


def test_a_file_without_them_has_none(write):
    assert load_shapes(write("batch_specs: [8q1s1k]\n")).ragged.specs == ()


@st.composite
def specs(draw):
    sizes = st.tuples(st.integers(2, 512), st.integers(1, 8))
    found = []
    for count, query_len in draw(st.lists(sizes, max_size=4, unique=True)):
        for _ in range(draw(st.integers(1, 4))):
            mean = query_len + draw(st.integers(2, 100_000))
            longest = draw(st.integers(mean + 1, min(longest_of(count, query_len, mean), 2**20)))
            share = draw(st.floats(0.001, 0.24))
            found.append(RaggedSpec(count, query_len, mean, longest, share))
    lengths = [(spec.size, spec.mean_kv, spec.longest_kv) for spec in found]
    return [spec for at, spec in enumerate(found) if lengths.index(lengths[at]) == at]


@given(specs())
def test_what_is_written_reads_back(written):
    rows = [
        {
            "spec": f"{s.requests}q{s.query_len}s{format_size(s.mean_kv)}",
            "longest": format_size(s.longest_kv),
            "share": s.share,
        }
        for s in written
    ]
    engine = {"modes": ["graph"], "max_model_len": 2**20}
    data = {"engine": engine, "batch_specs": ["8q1s1k"], "ragged_specs": rows}
    again = yaml.safe_load(yaml.safe_dump(data, sort_keys=False))
    assert list(checked_shapes(MappingDocument.of(again)).ragged.specs) == written


BAD = {
    "one request": ("- {spec: q1s1k, longest: 2k, share: 0.5}", "'q1s1k' is no captured batch"),
    "unlike requests": ("- {spec: q1s4k_7q1s1k, longest: 8k, share: 0.5}", "is no captured batch"),
    "no spec": ("- {spec: 8q, longest: 8k, share: 0.5}", "batch spec '8q': '8q' cannot be read"),
    "no longest": ("- {spec: 8q1s1k, share: 0.5}", "'ragged_specs.0.longest' is missing"),
    "another key": (
        "- {spec: 8q1s1k, longest: 2k, share: 0.5, weight: 3}",
        "unknown key 'ragged_specs.0.weight'",
    ),
    "all alike": ("- {spec: 8q1s1k, longest: 1k, share: 0.5}", "longest 1k in '8q1s1k'"),
    "longer than all together": (
        "- {spec: 8q1s1k, longest: 8k, share: 0.5}",
        "valid: from 1025 to 8178, where the others have one token before the new ones",
    ),
    "no context": ("- {spec: 8q4, longest: 8, share: 0.5}", "valid: a mean of 6 or more"),
    "no share": ("- {spec: 8q1s1k, longest: 2k, share: 0}", "ragged_specs.0.share"),
    "not even a number": ("- {spec: 8q1s1k, longest: 2k, share: .nan}", "ragged_specs.0.share"),
    "twice": (
        "- {spec: 8q1s1k, longest: 2k, share: 0.1}\n- {spec: 8q1s1024, longest: 2048, share: 0.2}",
        ":5: '8q1s1024' with longest 2k stands twice",
    ),
    "nothing left": (
        "- {spec: 8q1s1k, longest: 2k, share: 0.6}\n- {spec: 8q1s2k, longest: 4k, share: 0.4}",
        ":5: the ragged batches of 8 requests have shares of 1",
    ),
    "beyond the engine": (
        "- {spec: 8q1s64k, longest: 256k, share: 0.5}",
        "is below the longest KV length of the shapes, 262144",
    ),
}


@pytest.mark.parametrize(("lines", "says"), BAD.values(), ids=BAD)
def test_what_is_no_ragged_batch_is_refused_by_line(write, lines, says):
    text = "engine: {modes: graph, max_model_len: 128k}\nbatch_specs: [8q1s1k]\nragged_specs:\n"
    told = refusal(write(text + lines + "\n"))
    assert says in told
    assert "shapes.yaml:" in told


def test_their_number_is_bounded(write):
    lines = [f"- {{spec: 8q1s{1024 + n}, longest: 2k, share: 0.01}}\n" for n in range(17)]
    assert len(load_shapes(write(GRAPH + "".join(lines[:-1]))).ragged.specs) == MOST_SPECS
    assert "more than 16 ragged batches of 8 requests" in refusal(write(GRAPH + "".join(lines)))


def test_they_are_for_graphs(write):
    text = "batch_specs: [8q1s1k]\nragged_specs: [{spec: 8q1s1k, longest: 2k, share: 0.5}]\n"
    assert ":2: ragged_specs: is given, but only eager is tuned" in refusal(write(text))


def test_the_cache_holds_them(write):
    text = (
        "engine: {modes: graph}\ngraph: {kv_lens: 1k, kv_cache_tokens: 8000}\n"
        "ragged_specs: [{spec: 8q1s1k, longest: 2k, share: 0.5}]\n"
    )
    assert "up to the 8000 of kv_cache_tokens" in refusal(write(text))
