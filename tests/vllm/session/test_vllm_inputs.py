# ruff: noqa: ARG005
"""Inputs: paged out of order, ragged, and the same values in cache and arguments."""

import pytest
import torch

from mla_tune.shapes import BatchShape, MlaDimensions
from mla_tune.vllm.session import expected
from mla_tune.vllm.session.expected import _alike
from mla_tune.vllm.session.inputs import (
    LatentCache,
    blocks_needed,
    make_batch,
    topk_indices,
)

MODEL = MlaDimensions(4)
CPU = torch.device("cpu")


def filled(shape: BatchShape, block_size: int = 16) -> LatentCache:
    blocks = 1 + blocks_needed(shape, block_size)
    cache = LatentCache(blocks, block_size, MODEL, "auto", torch.float32, CPU)
    cache.fill(lambda *args: None, torch.Generator().manual_seed(0), torch.float32)
    return cache


@pytest.fixture
def batch():
    shape = BatchShape.parse("2q3s50_q20_3q1s33")
    cache = filled(shape)
    return shape, cache, make_batch(shape, cache, 256, None, torch.float32)


def test_blocks_are_used_once_and_out_of_order(batch):
    shape, _, made = batch
    used = made.block_table[made.block_table > 0].tolist()
    assert len(used) == len(set(used)) == blocks_needed(shape, 16)
    assert used != sorted(used)
    assert made.block_table.shape == (shape.num_requests, 256 // 16)


@pytest.mark.parametrize(
    ("block_size", "max_model_len", "width"),
    [(16, 200, 16), (16, 256, 16), (64, 4100, 66), (128, 4100, 33), (48, 4100, 88)],
)
def test_tables_are_as_wide_as_vllms(block_size, max_model_len, width):
    shape = BatchShape.parse("2q1s50")
    made = make_batch(shape, filled(shape, block_size), max_model_len, None, torch.float32)
    assert made.block_table.shape == (2, width)
    assert width * block_size % 128 == 0


def test_new_tokens_are_in_the_cache(batch):
    _, cache, made = batch
    latents = cache.latents(made.slots)
    assert torch.equal(latents[:, :512], made.kv_c.double())
    assert torch.equal(latents[:, 512:], made.k_pe[:, 0].double())


def test_a_query_sees_its_context_and_itself(batch):
    shape, _, made = batch
    for row in range(shape.num_query_tokens):
        assert int(made.visible([row], 16)[0, -1]) == int(made.slots[row])
    assert made.visible([0], 16).shape == (1, 33)
    last_of_first_long = 3 + 3 - 1
    assert made.visible([last_of_first_long], 16).shape == (1, 50)


def test_those_that_see_alike_many_are_looked_at_together(batch):
    shape, _, made = batch
    assert shape.num_query_tokens == 3 + 6 + 20
    assert made.contexts([0, 2, 3, 5, 8, 9, 28]) == [33, 33, 48, 50, 50, 1, 20]
    together = made.visible([3, 6], 16)
    assert together.shape == (2, 48)
    alone = [made.visible([row], 16)[0] for row in (3, 6)]
    assert torch.equal(together, torch.stack(alone))
    assert not set(together[0].tolist()) & set(together[1].tolist())


def test_rows_are_looked_at_together_where_all_is_alike_and_memory_allows(batch, monkeypatch):
    shape, _, made = batch
    rows = list(range(shape.num_query_tokens))
    groups = list(_alike(rows, made, (4, 20)))
    assert sorted(row for group in groups for row in group) == rows
    for group in groups:
        assert len(set(made.contexts(group))) == 1
        assert len({(row >= 4, row >= 20) for row in group}) == 1
    assert [0, 1, 2] in groups
    monkeypatch.setattr(expected, "TOKENS_AT_ONCE", 70)
    groups = list(_alike(rows, made, (4, 20)))
    assert [0, 1] in groups
    assert [2] in groups
    assert sorted(row for group in groups for row in group) == rows


def test_a_sparse_query_sees_what_was_chosen_for_it():
    shape = BatchShape.parse("2q2s40_1q1s300")
    cache = filled(shape)
    made = make_batch(shape, cache, 512, 64, torch.float32)
    whole = make_batch(shape, cache, 512, None, torch.float32)
    for row in range(shape.num_query_tokens):
        (length,) = made.contexts([row])
        (seen,) = made.visible([row], 16)
        assert len(seen) == min(length, 64)
        chosen = made.topk[row][made.topk[row] >= 0].long()
        assert torch.equal(seen, whole.visible([row], 16)[0][chosen])


def test_the_same_shape_gets_the_same_inputs(batch):
    shape, cache, made = batch
    again = make_batch(shape, cache, 256, None, torch.float32)
    assert torch.equal(made.query, again.query)
    assert torch.equal(made.block_table, again.block_table)


def test_topk_indices_are_valid_for_ragged_lengths():
    requests = ((1, 5), (1, 300), (40, 40), (3, 130))
    indices = topk_indices(requests, 128, torch.Generator().manual_seed(0))
    assert indices.shape == (45, 128)
    assert indices.dtype == torch.int32
    row = 0
    for query_len, kv_len in requests:
        for position in range(kv_len - query_len, kv_len):
            chosen = indices[row][indices[row] >= 0].tolist()
            assert len(chosen) == len(set(chosen)) == min(position + 1, 128)
            assert max(chosen) <= position
            assert (indices[row][len(chosen) :] == -1).all()
            row += 1


def test_packed_fp8_cache_is_read_as_it_is_laid_out():
    cache = LatentCache(1, 4, MODEL, "fp8_ds_mla", torch.bfloat16, CPU)
    values = torch.randn(4, 512).to(torch.float8_e4m3fn)
    scales = torch.rand(4, 4) + 0.5
    rotary = torch.randn(4, 64).bfloat16()
    packed = [values.view(torch.uint8), scales.view(torch.uint8), rotary.view(torch.uint8)]
    cache.blocks.copy_(torch.cat(packed, dim=1).view(1, 4, 656))
    latents = cache.latents(torch.tensor([2, 0]))
    expected = values.double() * scales.double().repeat_interleave(128, dim=1)
    assert torch.equal(latents[:, :512], expected[[2, 0]])
    assert torch.equal(latents[:, 512:], rotary.double()[[2, 0]])


def test_plain_fp8_cache_is_written_through_the_layer():
    cache = LatentCache(2, 16, MODEL, "fp8", torch.bfloat16, CPU)
    written = []

    def store(kv_c, k_pe, blocks, slots):
        assert k_pe.shape == (len(slots), 1, 64)
        rows = torch.cat([kv_c, k_pe[:, 0]], dim=1).to(torch.float8_e4m3fn)
        blocks.view(-1, 576)[slots] = rows.view(torch.uint8)
        written.extend(slots.tolist())

    cache.fill(store, torch.Generator().manual_seed(0), torch.bfloat16)
    assert sorted(written) == list(range(32))
    latents = cache.latents(torch.arange(32))
    assert 0.9 < float(latents.std()) < 1.1
