"""The float64 reference, against the formula written out."""

import torch

from mla_tune.backends.vllm_reference import Projections, attend, reference_rows


def test_moving_the_projections_changes_nothing():
    heads, nope, rope, rank, width, tokens = 3, 8, 4, 16, 6, 11
    weight = torch.randn(heads * (nope + width), rank)
    projections = Projections.of(weight, heads, nope)
    query = torch.randn(heads, nope + rope)
    latents = torch.randn(tokens, rank + rope).double()
    up = (latents[:, :rank] @ weight.double().T).view(tokens, heads, nope + width)
    rotary = latents[:, rank:].unsqueeze(1).expand(-1, heads, -1)
    keys = torch.cat([up[..., :nope], rotary], dim=-1)
    scores = torch.einsum("hd,thd->ht", query.double(), keys) * 0.3
    expected = torch.einsum("ht,thv->hv", scores.softmax(-1), up[..., nope:]).flatten()
    assert torch.allclose(attend(query, latents, projections, 0.3), expected, atol=1e-12)


def test_small_batches_are_checked_whole():
    assert reference_rows([(1, 10), (3, 5)]) == [0, 1, 2, 3]


def test_large_batches_keep_the_ends_of_the_shortest_and_longest_request():
    requests = [(1, 9000)] * 50 + [(100, 100), (300, 20000), (200, 300)]
    rows = reference_rows(requests)
    assert len(rows) <= 64
    assert rows == sorted(set(rows))
    starts = [0]
    for query_len, _ in requests:
        starts.append(starts[-1] + query_len)
    for index in (50, 51):
        assert {starts[index], starts[index + 1] - 1} <= set(rows)
    assert {0, starts[-1] - 1} <= set(rows)
