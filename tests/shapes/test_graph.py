import pytest
from shapes_files import refusal

from mla_tune.shapes.file import load_shapes

GRAPH = "engine: {modes: graph}\ngraph: "


def test_a_file_may_be_for_graphs_alone(write):
    file = load_shapes(write(GRAPH + "{capture_sizes: vllm, kv_lens: {1k: 2, 4k: 1}}\n"))
    assert file.cases == ()
    assert file.graph is not None
    assert (file.graph.capture_sizes, file.graph.max_num_seqs, file.graph.query_len) == (
        None,
        256,
        1,
    )
    assert file.graph.kv_lens == ((1024, 2.0), (4096, 1.0))
    assert file.graph.kv_cache_tokens is None


def test_sizes_may_be_listed_and_drafts_make_queries_longer(write):
    file = load_shapes(
        write(GRAPH + "{capture_sizes: [8, 4], draft_tokens: 2, kv_lens: 1k, kv_cache_tokens: 64k}")
    )
    assert file.graph is not None
    cases = file.graph.cases([8, 4, 8])
    assert [str(case.shape) for case in cases] == ["8q3s1k", "4q3s1k"]
    assert file.graph.kv_cache_tokens == 65536


def test_lengths_that_the_cache_cannot_hold_of_a_size_are_not_its_own(write):
    file = load_shapes(write(GRAPH + "{kv_lens: {1k: 2, 4k: 1, 16k: 1}, kv_cache_tokens: 64k}"))
    assert file.graph is not None
    cases = [str(case.shape) for case in file.graph.cases([4, 16, 64, 128])]
    assert cases == ["4q1s1k", "4q1s4k", "4q1s16k", "16q1s1k", "16q1s4k", "64q1s1k", "128q1s1k"]


BAD = {
    "no lengths": (GRAPH + "{capture_sizes: vllm}\n", ":2: 'graph.kv_lens' is missing"),
    "another word": (GRAPH + "{capture_sizes: all, kv_lens: 1k}\n", ":2: graph.capture_sizes"),
    "no sizes": (GRAPH + "{capture_sizes: [], kv_lens: 1k}\n", ":2: graph.capture_sizes"),
    "a size of zero": (GRAPH + "{capture_sizes: [0], kv_lens: 1k}\n", ":2: graph.capture_sizes"),
    "no drafts at all": (GRAPH + "{draft_tokens: -1, kv_lens: 1k}\n", ":2: graph.draft_tokens"),
    "a length of no weight": (GRAPH + "{kv_lens: {1k: 0}}\n", ":2: graph.kv_lens.1k"),
    "a length below the query": (
        GRAPH + "{draft_tokens: 7, kv_lens: [4, 1k]}\n",
        ":2: KV length 4 is below the 8 tokens of a step with 7 draft tokens",
    ),
    "no mode for it": ("graph: {kv_lens: 1k}\nbatch_specs: [q1]\n", ":1: graph: is given, but"),
    "nothing for eager": (
        "engine: {modes: [graph, eager]}\ngraph: {kv_lens: 1k}\n",
        "no batch shapes",
    ),
    "beyond the engine": (
        "engine: {modes: graph, max_model_len: 8k}\ngraph: {kv_lens: 16k}\n",
        "is below the longest KV length of the shapes, 16384",
    ),
}


@pytest.mark.parametrize(("text", "says"), BAD.values(), ids=BAD)
def test_what_no_engine_captures_is_refused_by_line(write, text, says):
    assert says in refusal(write(text))
