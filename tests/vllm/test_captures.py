from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.vllm import compat
from mla_tune.vllm.captures import captured_requests, default_capture_sizes


def sizes(vllm: str = "0.33.0", capability: str = "9.0", **asked: int) -> tuple[int, ...]:
    return default_capture_sizes(vllm, capability, **{"max_num_seqs": 256, **asked})


def test_an_engine_of_256_sequences_captures_51_sizes() -> None:
    assert len(sizes()) == 51
    assert sizes()[:5] == (1, 2, 4, 8, 16)
    assert sizes()[-2:] == (496, 512)
    assert sizes(max_num_seqs=1024) == sizes()
    assert sizes(capability="10.0", max_num_seqs=1024)[-1] == 1024


def test_a_few_sequences_need_few_sizes() -> None:
    assert sizes(max_num_seqs=1) == (1, 2)
    assert sizes(max_num_seqs=6) == (1, 2, 4, 6, 8)
    assert sizes("0.26.0", max_num_seqs=6) == (1, 2, 4, 8)


def test_with_draft_tokens_whole_requests_are_captured_too() -> None:
    assert 3 * 7 in sizes(max_num_seqs=7, query_len=3)
    assert 3 * 7 not in sizes("0.26.0", max_num_seqs=7, query_len=3)


def test_a_largest_size_of_the_engines_own_ends_the_list() -> None:
    assert sizes(max_num_seqs=100, largest=100)[-1] == 96
    assert sizes(max_num_seqs=8, largest=64)[-1] == 64


def test_a_graph_holds_whole_requests_and_no_more_than_all() -> None:
    assert captured_requests([1, 2, 4, 8, 16], 1, 8) == (1, 2, 4, 8)
    assert captured_requests([1, 2, 4, 8], 3, 256) == (1, 2, 3)


@given(st.lists(st.integers(1, 1024), min_size=1), st.integers(1, 32), st.integers(1, 1024))
def test_every_size_has_its_graph(found: list[int], query_len: int, most: int) -> None:
    requests = captured_requests(found, query_len, most)
    assert len(set(requests)) == len(requests)
    assert all(1 <= count <= most for count in requests)
    for size in found:
        assert any(count * query_len >= size or count == most for count in requests)


def of_vllm(max_num_seqs: int, draft_tokens: int, largest: int | None) -> tuple[int, ...]:
    """What the installed vLLM computes, from as much of a configuration as it looks at."""
    config = compat.symbol("vllm.config", "VllmConfig")
    mode = compat.symbol("vllm.config", "CUDAGraphMode")
    compilation = SimpleNamespace(
        cudagraph_mode=mode.FULL_AND_PIECEWISE,
        cudagraph_capture_sizes=None,
        max_cudagraph_capture_size=largest,
        pass_config=SimpleNamespace(enable_sp=False),
        post_init_cudagraph_sizes=lambda: None,
    )
    drafts = SimpleNamespace(
        num_speculative_tokens=draft_tokens, uses_dynamic_speculative_decoding=lambda: False
    )
    engine = SimpleNamespace(
        model_config=SimpleNamespace(enforce_eager=False),
        compilation_config=compilation,
        scheduler_config=SimpleNamespace(max_num_seqs=max_num_seqs, max_num_batched_tokens=8192),
        parallel_config=SimpleNamespace(tensor_parallel_size=1),
        speculative_config=drafts if draft_tokens else None,
        uniform_decode_query_len=1 + draft_tokens,
        num_speculative_tokens=draft_tokens,
        performance_mode="balanced",
    )
    config._set_cudagraph_sizes(engine)
    return tuple(compilation.cudagraph_capture_sizes)


@pytest.mark.vllm
@pytest.mark.parametrize("draft_tokens", [0, 1, 2, 7, 16])
@pytest.mark.parametrize("largest", [None, 96, 513])
def test_the_sizes_are_those_of_the_installed_release(
    draft_tokens: int, largest: int | None
) -> None:
    vllm = compat.installed()
    assert vllm is not None
    for max_num_seqs in (1, 2, 3, 6, 8, 100, 255, 256, 300, 512, 1024):
        ours = default_capture_sizes(
            vllm, "9.0", max_num_seqs=max_num_seqs, query_len=1 + draft_tokens, largest=largest
        )
        assert ours == of_vllm(max_num_seqs, draft_tokens, largest), (max_num_seqs, draft_tokens)
