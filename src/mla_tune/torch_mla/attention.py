"""Multi-head latent attention in plain PyTorch: both paths, and the float64 reference.

Formulas are DeepSeek-V2's (arXiv:2405.04434, section 2.1): a token's cache entry is its latent
``c`` (kv_lora_rank) and its rotary key ``r`` (qk_rope_head_dim). Prefill up-projects
``k = [c W_UK, r]`` and ``v = c W_UV``; decode absorbs W_UK into the query and W_UV behind the
attention, so that all heads attend to the latent itself.
"""

__all__ = ["PagedCache", "Weights", "decode", "prefill", "reference", "splits_in_use"]

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from mla_tune.shapes import MlaDimensions
from mla_tune.torch_mla.memory import WORKSPACE_BYTES


@dataclass(frozen=True)
class Weights:
    """The up-projections of one layer.

    ``w_uk`` is ``[num_q_heads, qk_nope_head_dim, kv_lora_rank]``, ``w_uv`` is
    ``[num_q_heads, kv_lora_rank, v_head_dim]``, both in the activations' dtype.
    """

    w_uk: torch.Tensor
    w_uv: torch.Tensor

    @classmethod
    def random(
        cls, model: MlaDimensions, dtype: torch.dtype, generator: torch.Generator
    ) -> "Weights":
        """Normal weights of variance 1/kv_lora_rank, which keeps keys and values of order one."""
        scale = model.kv_lora_rank**-0.5
        device = generator.device
        heads, rank = model.num_q_heads, model.kv_lora_rank
        shape_uk = (heads, model.qk_nope_head_dim, rank)
        shape_uv = (heads, rank, model.v_head_dim)
        return cls(
            (torch.randn(shape_uk, generator=generator, device=device) * scale).to(dtype),
            (torch.randn(shape_uv, generator=generator, device=device) * scale).to(dtype),
        )


@dataclass(frozen=True)
class PagedCache:
    """The latent cache of a batch.

    ``blocks`` is ``[num_blocks, block_size, kv_lora_rank + qk_rope_head_dim]``; ``table`` (int64)
    is ``[num_requests, max_blocks_per_request]``, padded with block 0.
    """

    blocks: torch.Tensor
    table: torch.Tensor

    @property
    def block_size(self) -> int:
        return self.blocks.shape[1]

    def gather(self, rows: slice, num_blocks: int, dtype: torch.dtype) -> torch.Tensor:
        """The latents of some requests, ``[len(rows), num_blocks * block_size, latent_dim]``."""
        table = self.table[rows, :num_blocks]
        latents = self.blocks[table].to(dtype)
        return latents.view(table.shape[0], -1, self.blocks.shape[2])


def splits_in_use(num_blocks: int, num_kv_splits: int) -> int:
    """How many parts ``num_blocks`` blocks really fall into when cut into ``num_kv_splits``."""
    return math.ceil(num_blocks / math.ceil(num_blocks / min(num_kv_splits, num_blocks)))


def decode(
    query: torch.Tensor,
    kv_lens: torch.Tensor,
    cache: PagedCache,
    rows: slice,
    weights: Weights,
    scale: float,
    num_kv_splits: int,
    output: torch.Tensor,
) -> None:
    """The absorbed path: multi-query attention over the latent cache, cut into splits.

    Args:
        query: ``[num_requests, query_len, num_q_heads, qk_head_dim]``.
        kv_lens: ``[num_requests]`` int64, ragged; each counts the new tokens too.
        cache, rows: where the requests' latents are.
        scale: of the softmax.
        num_kv_splits: parts that run as one batched product and merge by log-sum-exp.
        output: ``[num_requests, query_len, num_q_heads, v_head_dim]``, written.
    """
    num_requests, query_len, num_heads, _ = query.shape
    num_blocks = math.ceil(int(kv_lens.max()) / cache.block_size)
    scores_bytes = num_heads * query_len * num_blocks * cache.block_size * 4
    turn = max(1, WORKSPACE_BYTES // scores_bytes)
    for first in range(0, num_requests, turn):
        last = min(first + turn, num_requests)
        part = slice(rows.start + first, rows.start + last)
        _decode_turn(
            query[first:last], kv_lens[first:last], cache, part, weights, scale, num_kv_splits,
            output[first:last],
        )  # fmt: skip


def _decode_turn(
    query: torch.Tensor,
    kv_lens: torch.Tensor,
    cache: PagedCache,
    rows: slice,
    weights: Weights,
    scale: float,
    num_kv_splits: int,
    output: torch.Tensor,
) -> None:
    nope = weights.w_uk.shape[1]
    rank = weights.w_uk.shape[2]
    absorbed = torch.einsum("bqhp,hpl->bhql", query[..., :nope], weights.w_uk)
    rotary = query[..., nope:].transpose(1, 2)
    # [requests, 1, heads * query_len, latent]: heads share the latents, so they are rows.
    rows_of_query = torch.cat([absorbed, rotary], dim=-1).flatten(1, 2).unsqueeze(1)

    latents, split_len = _cut(cache, rows, kv_lens, num_kv_splits, query.dtype)
    scores = (rows_of_query @ latents.transpose(-1, -2)).float().mul_(scale)
    _mask(scores, kv_lens, query.shape[1], split_len)
    # Each split keeps its own maximum; merging by them is exact in any order.
    split_max = scores.amax(dim=-1, keepdim=True)
    weights_of_scores = scores.sub_(split_max).exp_()
    sums = weights_of_scores.sum(dim=-1, keepdim=True)
    partial = (weights_of_scores.to(query.dtype) @ latents[..., :rank]).float()
    share = (split_max - split_max.amax(dim=1, keepdim=True)).exp_()
    merged = (partial * share).sum(dim=1) / (sums * share).sum(dim=1)
    merged = merged.to(query.dtype).unflatten(1, absorbed.shape[1:3])
    output.copy_(torch.einsum("bhql,hlv->bqhv", merged, weights.w_uv))


def _cut(
    cache: PagedCache, rows: slice, kv_lens: torch.Tensor, num_kv_splits: int, dtype: torch.dtype
) -> tuple[torch.Tensor, int]:
    """Gather latents as ``[requests, splits, split_len, latent]``, the last split padded."""
    num_blocks = math.ceil(int(kv_lens.max()) / cache.block_size)
    splits = splits_in_use(num_blocks, num_kv_splits)
    blocks_per_split = math.ceil(num_blocks / splits)
    latents = cache.gather(rows, num_blocks, dtype)
    padding = (splits * blocks_per_split - num_blocks) * cache.block_size
    if padding:
        latents = F.pad(latents, (0, 0, 0, padding))
    return latents.unflatten(1, (splits, -1)), blocks_per_split * cache.block_size


def _mask(scores: torch.Tensor, kv_lens: torch.Tensor, query_len: int, split_len: int) -> None:
    """Hide what lies beyond each request's end and ahead of each query token, in place.

    ``scores`` is ``[requests, splits, heads * query_len, split_len]``. A large negative number,
    not infinity: a split that is hidden whole must merge with weight zero instead of NaN.
    """
    splits = scores.shape[1]
    shortest_view = int(kv_lens.min()) - query_len + 1
    if shortest_view >= splits * split_len:
        return
    device = scores.device
    position = torch.arange(splits * split_len, device=device).view(1, splits, 1, 1, split_len)
    visible = kv_lens.view(-1, 1) - query_len + 1 + torch.arange(query_len, device=device)
    hidden = position >= visible.view(-1, 1, 1, query_len, 1)
    scores.unflatten(2, (-1, query_len)).masked_fill_(hidden, torch.finfo(scores.dtype).min / 4)


def prefill(
    query: torch.Tensor,
    kv_len: int,
    cache: PagedCache,
    rows: slice,
    weights: Weights,
    scale: float,
    implementation: SDPBackend,
    output: torch.Tensor,
) -> None:
    """The up-projecting path: ordinary multi-head attention of requests of equal lengths.

    Args:
        query: ``[num_requests, query_len, num_q_heads, qk_head_dim]``.
        kv_len: of every request, counting the new tokens.
        implementation: which of PyTorch's scaled-dot-product kernels runs.
        output: ``[num_requests, query_len, num_q_heads, v_head_dim]``, written.
    """
    rank = weights.w_uk.shape[2]
    num_blocks = math.ceil(kv_len / cache.block_size)
    latents = cache.gather(rows, num_blocks, query.dtype)[:, :kv_len]
    compressed, rotary = latents.split([rank, latents.shape[-1] - rank], dim=-1)
    key_nope = torch.einsum("bsl,hpl->bhsp", compressed, weights.w_uk)
    value = torch.einsum("bsl,hlv->bhsv", compressed, weights.w_uv)
    key = torch.cat([key_nope, rotary.unsqueeze(1).expand(-1, key_nope.shape[1], -1, -1)], dim=-1)
    attended = attention(query.transpose(1, 2), key, value, scale, implementation)
    output.copy_(attended.transpose(1, 2))


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    implementation: SDPBackend,
) -> torch.Tensor:
    """Causal attention, aligned to the end; ``[batch, heads, len, head_dim]`` throughout."""
    query_len, kv_len = query.shape[2], key.shape[2]
    v_head_dim = value.shape[-1]
    if implementation is not SDPBackend.MATH:
        # Fused kernels want one head size for all three, as vLLM pads for FlashAttention 2.
        value = F.pad(value, (0, query.shape[-1] - v_head_dim))
    mask: torch.Tensor | None = None
    if query_len != kv_len:
        mask = _lower_right(query_len, kv_len, query.device)
    with sdpa_kernel(implementation):
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale
        )
    return attended[..., :v_head_dim]


def _lower_right(query_len: int, kv_len: int, device: torch.device) -> torch.Tensor:
    """The causal mask that is aligned to the end."""
    if device.type == "cpu":
        return torch.ones(query_len, kv_len, dtype=torch.bool).tril_(kv_len - query_len)
    # It imports torch's compiler, which takes two seconds.
    from torch.nn.attention.bias import causal_lower_right

    return causal_lower_right(query_len, kv_len)


def reference(
    query: torch.Tensor,
    requests: Sequence[tuple[int, int]],
    rows: torch.Tensor,
    cache: PagedCache,
    weights: Weights,
    scale: float,
) -> torch.Tensor:
    """Attention of chosen query tokens in float64, one token at a time, no trick shared.

    Args:
        query: ``[num_query_tokens, num_q_heads, qk_head_dim]``.
        requests: (query_len, kv_len) of each request, in the order of the tokens.
        rows: int64 row numbers into ``query``.

    Returns:
        ``[len(rows), num_q_heads * v_head_dim]`` in float64.
    """
    nope, rank = weights.w_uk.shape[1:]
    w_uk, w_uv = weights.w_uk.double(), weights.w_uv.double()
    owners = [(index, i) for index, (q, _) in enumerate(requests) for i in range(q)]
    results = []
    for row in rows.tolist():
        index, offset = owners[row]
        query_len, kv_len = requests[index]
        visible = kv_len - query_len + offset + 1
        blocks = math.ceil(visible / cache.block_size)
        latents = cache.blocks[cache.table[index, :blocks]].flatten(0, 1)[:visible].double()
        token = query[row].double()
        keys = torch.einsum("sl,hpl->hsp", latents[:, :rank], w_uk)
        scores = torch.einsum("hp,hsp->hs", token[:, :nope], keys)
        scores += torch.einsum("hr,sr->hs", token[:, nope:], latents[:, rank:])
        shares = torch.softmax(scores * scale, dim=-1)
        values = torch.einsum("sl,hlv->hsv", latents[:, :rank], w_uv)
        results.append(torch.einsum("hs,hsv->hv", shares, values).flatten())
    return torch.stack(results)
