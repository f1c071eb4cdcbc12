from pathlib import Path

import pytest

from make_trace import Traffic, trace_lines
from mla_tune.errors import InputError
from mla_tune.shapes.file import ShapesFile, load_shapes
from mla_tune.shapes.ragged import RaggedSpec
from mla_tune.traffic.batching import SimulatedEngine, decode_steps
from mla_tune.traffic.trace import load_trace
from mla_tune.traffic.trace_shapes import shapes_from_trace

ENGINE = SimulatedEngine(max_num_seqs=64, max_model_len=32768)


def made(folder: Path, *requests: tuple[int, int]) -> Path:
    path = folder / "trace.csv"
    lines = [f"2024-05-10 00:00:00,{context},{generated}" for context, generated in requests]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]))
    return path


def read(folder: Path, trace: Path, engine: SimulatedEngine = ENGINE) -> tuple[str, ShapesFile]:
    text = shapes_from_trace(trace, engine, "deepseek-v2")
    (folder / "shapes.yaml").write_text(text)
    return text, load_shapes(folder / "shapes.yaml")


def test_a_step_counts_half_at_its_mean_and_half_at_its_longest(tmp_path: Path) -> None:
    # One decode step of two requests, then two of one request.
    text, shapes = read(tmp_path, made(tmp_path, (1000, 2), (7000, 4)))
    assert shapes.graph is not None
    assert shapes.graph.kv_lens == ((4096, 0.5), (8192, 2.5))
    assert (shapes.graph.capture_sizes, shapes.graph.max_num_seqs) == (None, 64)
    assert shapes.modes == ("graph", "eager")
    assert "2 requests, 3 steps of 30 ms" in text
    assert "33% of the steps have one over 1.5 times the mean" in " ".join(text.split("\n# "))


def test_the_grid_reaches_around_what_was_served(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("\n".join(trace_lines(Traffic(requests=200), seed=1)))
    _, shapes = read(tmp_path, trace)
    served = list(decode_steps(load_trace(trace), ENGINE))
    shapes_of = [case.shape for case in shapes.cases]
    shortest = min(shape.max_kv_len for shape in shapes_of)
    assert sum(step.mean() < shortest for step in served) <= 0.01 * len(served)
    assert max(shape.max_kv_len for shape in shapes_of) >= max(step.max() for step in served)
    assert max(shape.num_requests for shape in shapes_of) >= max(map(len, served))
    assert min(shape.num_requests for shape in shapes_of) == 1


def test_ragged_steps_become_ragged_batches_of_the_graph_that_they_replay(tmp_path: Path) -> None:
    requests = [(1000, 201), (1000, 201), (9000, 201), (3000, 301)]
    _, shapes = read(tmp_path, made(tmp_path, *requests[:3]))
    # Three requests replay the graph of four.
    assert shapes.ragged.specs == (RaggedSpec(4, 1, 3488, 9888, 0.95),)
    _, shapes = read(tmp_path, made(tmp_path, *requests), SimulatedEngine(max_num_seqs=3))
    assert {spec.requests for spec in shapes.ragged.specs} == {3}
    assert {
        spec.size for spec in read(tmp_path, made(tmp_path, (1000, 201)))[1].ragged.specs
    } == set()


def test_what_is_rare_is_left_out(tmp_path: Path) -> None:
    _, shapes = read(tmp_path, made(tmp_path, (10, 3), (1000, 5), (1200, 2500)))
    assert shapes.graph is not None
    assert [kv_len for kv_len, _ in shapes.graph.kv_lens] == [1024, 2048, 4096]
    assert min(case.shape.max_kv_len for case in shapes.cases) == 1024


def test_nothing_is_tuned_beyond_the_longest_of_the_engine(tmp_path: Path) -> None:
    engine = SimulatedEngine(max_model_len=3000)
    text, shapes = read(tmp_path, made(tmp_path, (2897, 3), (2999, 3)), engine)
    assert shapes.graph is not None
    assert shapes.graph.kv_lens == ((3000, 2.0),)
    assert max(case.shape.max_kv_len for case in shapes.cases) == 3000
    assert "# 1 requests of more than 3000 tokens are left out." in text


def test_a_trace_that_decodes_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes a decode step"):
        read(tmp_path, made(tmp_path, (100, 1)))
