from dataclasses import replace
from pathlib import Path

import pytest

from fake_device import ENVIRONMENT
from mla_tune.shapes.file import load_shapes
from mla_tune.tuning.graph_cases import graph_cases, largest_capture

H100 = replace(ENVIRONMENT, compute_capability="9.0", software={"vllm": "0.33.0"})
HEAD = "engine: {modes: graph}\n"


@pytest.fixture
def cases(write):
    """The graph cases of a shapes file, as batch specs."""

    def found(text, environment=H100, **changes):
        shapes = replace(load_shapes(write(HEAD + text)), **changes)
        return [str(case.shape) for case in graph_cases(shapes, environment)]

    return found


def test_all_that_the_release_captures_is_tuned(cases):
    found = cases("graph: {max_num_seqs: 1024, kv_lens: {1k: 2, 4k: 1}}\n")
    assert len(found) == 2 * 51
    assert found[:3] == ["q1s1k", "q1s4k", "2q1s1k"]
    assert found[-1] == "512q1s4k"
    # No batch is larger than all sequences together.
    assert cases("graph: {kv_lens: 1k}\n")[-1] == "256q1s1k"
    assert len(cases("graph: {max_num_seqs: 1024, kv_lens: 1k}\n", ENVIRONMENT)) == 51


def test_without_the_section_the_listed_shapes_are_tuned(cases):
    assert cases("batch_specs: [8q1s1k]\n") == ["8q1s1k"]


def test_the_section_stands_in_for_the_listed_shapes(cases):
    text = "batch_specs: [64q1s1k]\ngraph: {capture_sizes: [8], kv_lens: 1k}\n"
    assert cases(text) == ["8q1s1k"]


def test_shapes_of_too_many_tokens_are_left_out(cases):
    text = "graph: {capture_sizes: [1, 8], kv_lens: [1k, 4k]}\n"
    assert cases(text, max_tokens=8192) == ["q1s1k", "q1s4k", "8q1s1k"]


def test_a_listed_size_above_vllms_own_raises_the_largest_capture(write):
    listed = load_shapes(write(HEAD + "graph: {capture_sizes: [8, 640], kv_lens: 1k}\n"))
    assert largest_capture(listed, H100) == 640
    few = load_shapes(write(HEAD + "graph: {capture_sizes: [8], kv_lens: 1k}\n"))
    assert largest_capture(few, H100) == 512


@pytest.mark.parametrize(
    ("example", "sizes", "most"), [("graph_all_sizes", 51, 3 * 51), ("graph_exhaustive", 20, 114)]
)
def test_an_example_names_every_captured_size(example, sizes, most):
    path = Path(__file__).parents[2] / "examples" / f"{example}.yaml"
    found = graph_cases(replace(load_shapes(path), max_tokens=20480 * 1024), H100)
    assert len({case.shape.num_requests for case in found}) == sizes
    assert len(found) == most
