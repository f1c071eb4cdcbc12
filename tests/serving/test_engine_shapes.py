from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.files.document import Document, Kind
from mla_tune.serving.engine import ServedEngine
from mla_tune.serving.engine_shapes import engine_shapes, shapes_text, tuned_mode
from mla_tune.shapes.file import ShapesFile, checked_shapes
from served_engines import CPU, engine

engines = st.builds(
    engine,
    max_model_len=st.integers(32, 2**20),
    max_num_seqs=st.integers(1, 4096),
    capture_sizes=st.sets(st.integers(1, 1024), max_size=60).map(sorted).map(tuple),
    decode_graphs=st.booleans(),
    draft_tokens=st.integers(0, 16),
    kv_cache_tokens=st.none() | st.integers(2**20, 2**24),
    block_size=st.none() | st.sampled_from([16, 64]),
    quantization=st.sampled_from(["none", "fp8_per_block", "awq"]),
    backend=st.none() | st.sampled_from(["TRITON_MLA", "FLASHMLA_SPARSE", "TORCH_MLA", "NEW_MLA"]),
    index_topk=st.none() | st.just(2048),
    context_parallel=st.sampled_from([1, 2]),
)


def read(described: ServedEngine) -> ShapesFile:
    text = shapes_text(described, "vllm serve model")
    return checked_shapes(Document.parse(Path("shapes.yaml"), text, Kind("shapes file")))


@given(engines)
def test_every_engine_has_shapes_that_a_run_accepts(described: ServedEngine) -> None:
    shapes = read(described)
    assert shapes.models == (described.model,)
    assert shapes.modes == (tuned_mode(described),)
    assert shapes.max_model_len == described.max_model_len
    if shapes.graph is not None:
        assert shapes.graph.capture_sizes == described.capture_sizes
        assert shapes.graph.query_len == described.query_len
    else:
        longest = max(case.shape.max_kv_len for case in shapes.cases)
        assert longest <= described.max_model_len
        assert max(case.shape.num_requests for case in shapes.cases) <= described.max_num_seqs


def test_some_of_the_captured_sizes() -> None:
    assert engine_shapes(engine(), (8, 1))["graph"]["capture_sizes"] == [8, 1]


def test_eager_batches_fit_into_the_cache() -> None:
    shapes = read(engine(decode_graphs=False, kv_cache_tokens=2**20))
    assert 10 <= len(shapes.cases) <= 15
    assert max(case.shape.num_kv_tokens for case in shapes.cases) <= 2**20
    assert {1, 1024} <= {case.shape.num_requests for case in shapes.cases}


@pytest.mark.parametrize(
    ("changes", "remark"),
    [
        ({"device": CPU}, "No GPU was there to ask"),
        ({"backend": None}, "name one with --backend"),
        ({"backend": "NEW_MLA"}, "NEW_MLA, which cannot be tuned"),
        ({"context_parallel": 2}, "2 GPUs share the KV cache"),
        ({"quantization": "awq"}, "Its weights are awq"),
    ],
)
def test_what_is_not_known_is_said(changes: dict[str, object], remark: str) -> None:
    assert remark in shapes_text(engine(**changes), "vllm serve model")


def test_a_command_cannot_end_its_comment() -> None:
    first, second = shapes_text(engine(), "vllm serve 'a\nb'").splitlines()[:2]
    assert first.startswith("# What vLLM 0.33.0 would serve")
    assert second.startswith("# KV lengths")
