"""The float64 reference, against the formula written out."""

from functools import partial

import pytest
import torch

from mla_tune.measuring.correctness import FP8_TOLERANCE, MAGNITUDE, TOLERANCES
from mla_tune.vllm.session import reference as vllm_reference
from mla_tune.vllm.session.reference import (
    Projections,
    attend,
    attend_up_projected,
    reference_rows,
    rounded_to_fp8,
)


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


def test_several_tokens_together_get_what_each_gets_alone():
    heads, nope, rope, rank, width, tokens = 3, 8, 4, 16, 6, 11
    projections = Projections.of(torch.randn(heads * (nope + width), rank), heads, nope)
    query, latents = torch.randn(5, heads, nope + rope), torch.randn(5, tokens, rank + rope)
    together = attend(query, latents.double(), projections, 0.3)
    alone = [
        attend(q, seen.double(), projections, 0.3) for q, seen in zip(query, latents, strict=True)
    ]
    assert together.shape == (5, heads * width)
    assert torch.allclose(together, torch.stack(alone), atol=1e-12)


def test_keys_and_values_of_a_projection_are_attended_to_as_they_are(monkeypatch):
    monkeypatch.setattr(vllm_reference, "TOKENS_AT_ONCE", 4)
    heads, nope, rope, rank, width, tokens = 3, 8, 4, 16, 6, 11
    weight = torch.randn(heads * (nope + width), rank)
    query = torch.randn(heads, nope + rope)
    latents = torch.randn(tokens, rank + rope).double()

    def project(compressed):
        up = (compressed @ weight.double().T).view(-1, heads, nope + width)
        return up.split((nope, width), dim=-1)

    exact = attend(query, latents, Projections.of(weight, heads, nope), 0.3)
    assert torch.allclose(
        attend_up_projected(query, latents, project, rank, 0.3), exact, atol=1e-12
    )
    off = attend_up_projected(
        query, latents, lambda part: [half * 1.1 for half in project(part)], rank, 0.3
    )
    assert not torch.allclose(off, exact, atol=1e-3)


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


def to_e4m3(values):
    return values.clamp(-448, 448).float().to(torch.float8_e4m3fn).double()


def fp8_kernel(query, latents, projections, scale, *, block=64):
    """What FLASHMLA's fp8 kernel computes (csrc/extension/sm90/dense_fp8 of vLLM's FlashMLA).

    Blocks of 64 keys from the last to the first, softmax against the running maximum, weights
    rounded to e4m3 for the product with the values, their sum taken before the rounding.
    """
    nope, rank = projections.w_uk.shape[1:]
    absorbed = torch.einsum("hp,hpl->hl", query[:, :nope].double(), projections.w_uk.double())
    seen = to_e4m3(torch.cat([absorbed, query[:, nope:].double()], dim=-1).bfloat16())
    scores = seen @ latents.T * scale
    heads = len(query)
    total, result = torch.zeros(heads, 1).double(), torch.zeros(heads, rank).double()
    largest = torch.full((heads, 1), -1e30).double()
    for first in reversed(range(0, len(latents), block)):
        part = scores[:, first : first + block]
        now = torch.maximum(largest, part.amax(dim=1, keepdim=True))
        shrunk, weights = torch.exp(largest - now), torch.exp(part - now)
        total = total * shrunk + weights.sum(dim=1, keepdim=True)
        result = result * shrunk + to_e4m3(weights) @ latents[first : first + block, :rank]
        largest = now
    latent = (result / total).bfloat16().double()
    return torch.einsum("hl,hvl->hv", latent, projections.w_uv.double()).flatten()


@pytest.mark.parametrize("tokens", [3, 64, 1000, 4096])
def test_an_fp8_kernel_is_right_only_by_a_reference_that_sees_its_queries(tokens):
    torch.manual_seed(tokens)
    heads, nope, rope, rank, width, scale = 8, 128, 64, 512, 128, 192**-0.5
    weight = (torch.randn(heads * (nope + width), rank) * rank**-0.5).bfloat16()
    projections = Projections.of(weight, heads, nope)
    rounded = partial(rounded_to_fp8, dtype=torch.bfloat16, q_scale=1.0)
    kernel, seeing, blind = [], [], []
    for _ in range(8):
        query = (torch.randn(heads, nope + rope) * MAGNITUDE).bfloat16()
        latents = to_e4m3(torch.randn(tokens, rank + rope).bfloat16())
        kernel.append(fp8_kernel(query, latents, projections, scale))
        seeing.append(attend(query, latents, projections, scale, rounded))
        blind.append(attend(query, latents, projections, scale))
    kernel, seeing, blind = map(torch.stack, (kernel, seeing, blind))
    assert (kernel - seeing).norm() / seeing.norm() < FP8_TOLERANCE / 2
    if tokens > 3:
        assert (kernel - blind).norm() / blind.norm() > 2 * TOLERANCES["torch.bfloat16"]


def test_fp8_saturates_and_takes_its_scale_into_account():
    values = torch.tensor([1.0, 1.06, 1.07, 1000.0, -1000.0])
    assert rounded_to_fp8(values, torch.bfloat16, 1.0).tolist() == [1, 1, 1.125, 448, -448]
    assert rounded_to_fp8(values, torch.bfloat16, 4.0)[3:].tolist() == [1024, -1024]
