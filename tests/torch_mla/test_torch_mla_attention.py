import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend

from mla_tune.shapes import MlaDimensions
from mla_tune.torch_mla import attention as torch_attention
from mla_tune.torch_mla.attention import (
    PagedCache,
    Weights,
    attention,
    decode,
    prefill,
    reference,
    splits_in_use,
)

MODEL = MlaDimensions(2, 32, 16, 8, 16)
BLOCK = 16
SCALE = MODEL.softmax_scale


@st.composite
def ragged_batches(draw):
    """(query_len, kv_lens, splits) of a batch of one query length."""
    query_len = draw(st.integers(1, 9))
    kv_lens = draw(st.lists(st.integers(query_len, 150), min_size=1, max_size=4))
    return query_len, kv_lens, draw(st.integers(1, 20))


def made(query_len, kv_lens):
    """Query, cache and weights in float64, so that any difference is a mistake."""
    generator = torch.Generator().manual_seed(0)
    counts = [math.ceil(kv_len / BLOCK) for kv_len in kv_lens]
    order = torch.randperm(sum(counts), generator=generator) + 1
    table = torch.zeros(len(kv_lens), max(counts), dtype=torch.int64)
    for row, blocks in enumerate(order.split(counts)):
        table[row, : len(blocks)] = blocks
    size = (sum(counts) + 1, BLOCK, MODEL.latent_dim)
    cache = PagedCache(torch.randn(size, generator=generator, dtype=torch.float64), table)
    query = torch.randn(
        *(len(kv_lens), query_len, MODEL.num_q_heads, MODEL.qk_head_dim),
        generator=generator,
        dtype=torch.float64,
    )
    return query, cache, Weights.random(MODEL, torch.float64, generator)


def expected(query, kv_lens, cache, weights):
    requests = [(query.shape[1], kv_len) for kv_len in kv_lens]
    rows = torch.arange(query.shape[0] * query.shape[1])
    values = reference(query.flatten(0, 1), requests, rows, cache, weights, SCALE)
    return values.view(*query.shape[:3], MODEL.v_head_dim)


def empty_output(query):
    size = (*query.shape[:3], MODEL.v_head_dim)
    return torch.full(size, float("nan"), dtype=query.dtype)


@given(ragged_batches())
def test_decode_of_ragged_batches_agrees_with_the_reference_for_any_splits(batch):
    query_len, kv_lens, splits = batch
    query, cache, weights = made(query_len, kv_lens)
    output = empty_output(query)
    lens = torch.tensor(kv_lens)
    decode(query, lens, cache, slice(0, len(kv_lens)), weights, SCALE, splits, output)
    # Scores and merging are float32 by design.
    torch.testing.assert_close(
        output, expected(query, kv_lens, cache, weights), rtol=1e-4, atol=1e-5
    )


@given(st.integers(1, 3), st.integers(1, 40), st.integers(0, 100))
def test_prefill_agrees_with_the_reference(count, query_len, context):
    kv_lens = [query_len + context] * count
    query, cache, weights = made(query_len, kv_lens)
    output = empty_output(query)
    rows = slice(0, count)
    prefill(query, kv_lens[0], cache, rows, weights, SCALE, SDPBackend.MATH, output)
    torch.testing.assert_close(output, expected(query, kv_lens, cache, weights))


def test_a_batch_too_large_for_the_workspace_is_decoded_in_turns(monkeypatch):
    kv_lens = [100, 60, 80, 33, 5]
    query, cache, weights = made(1, kv_lens)
    whole, in_turns = empty_output(query), empty_output(query)
    arguments = (query, torch.tensor(kv_lens), cache, slice(0, 5), weights, SCALE, 3)
    decode(*arguments, whole)
    monkeypatch.setattr(torch_attention, "WORKSPACE_BYTES", 1)
    decode(*arguments, in_turns)
    torch.testing.assert_close(in_turns, whole, rtol=1e-4, atol=1e-5)


def test_large_scores_do_not_overflow_the_merge():
    query, cache, weights = made(1, [150, 40])
    query = query * 300
    output = empty_output(query)
    decode(query, torch.tensor([150, 40]), cache, slice(0, 2), weights, SCALE, 8, output)
    torch.testing.assert_close(
        output, expected(query, [150, 40], cache, weights), rtol=1e-3, atol=1e-3
    )


@given(st.integers(1, 500), st.integers(1, 500))
def test_splits_in_use_are_no_more_than_asked_for_and_cover_all_blocks(blocks, asked):
    used = splits_in_use(blocks, asked)
    assert 1 <= used <= min(blocks, asked)
    per_split = math.ceil(blocks / used)
    assert (used - 1) * per_split < blocks <= used * per_split


@pytest.mark.parametrize("implementation", [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])
@pytest.mark.parametrize(("query_len", "kv_len"), [(8, 8), (8, 20), (1, 20)])
def test_implementations_agree_on_causal_attention_aligned_to_the_end(
    implementation, query_len, kv_len
):
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(2, 2, query_len, 24, generator=generator)
    key = torch.randn(2, 2, kv_len, 24, generator=generator)
    value = torch.randn(2, 2, kv_len, 16, generator=generator)
    hidden = torch.ones(query_len, kv_len).triu(kv_len - query_len + 1).bool()
    scores = (query @ key.mT * 0.2).masked_fill(hidden, -torch.inf)
    found = attention(query, key, value, 0.2, implementation)
    torch.testing.assert_close(found, scores.softmax(-1) @ value, rtol=1e-4, atol=1e-5)
