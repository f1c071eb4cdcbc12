"""The latent cache and the batches that a session runs: random, ragged and paged out of order."""

__all__ = ["Batch", "LatentCache", "blocks_needed", "make_batch", "topk_indices"]

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mla_tune.shapes import BatchShape, MlaDimensions
from mla_tune.vllm.compat import layers

if TYPE_CHECKING:
    import torch

# FLASHMLA_SPARSE's own format: 512 fp8 values, 4 float32 scales of 128 values each, and the
# rotary part in bfloat16.
DS_MLA_BYTES = 656
DS_MLA_TILE = 128
# vLLM's block tables are so many tokens wide, or a multiple (`get_block_table_width` of 0.32):
# FlashInfer's decode kernels refuse others.
TABLE_TOKENS = 128
CHUNK_TOKENS = 1 << 16
# Elements of the random scores that top-k tokens are drawn with, at a time.
CHUNK_SCORES = 1 << 26

Store = Callable[["torch.Tensor", "torch.Tensor", "torch.Tensor", "torch.Tensor"], None]
"""Writes (kv_c, k_pe, blocks, slots) as the layer would."""


def blocks_needed(shape: BatchShape, block_size: int) -> int:
    """How many blocks the requests of ``shape`` fill, the last of each in part."""
    return sum(group.count * -(-group.kv_len // block_size) for group in shape.groups)


class LatentCache:
    """A paged latent cache, every slot of it filled.

    ``blocks`` is ``[num_blocks, block_size, width]`` in the dtype vLLM allocates: the
    activations', or bytes for the fp8 formats. Block 0 is the one that vLLM keeps for padding.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        model: MlaDimensions,
        kv_cache_dtype: str,
        dtype: "torch.dtype",
        device: "torch.device",
    ) -> None:
        import torch

        self.block_size = block_size
        self.kv_cache_dtype = kv_cache_dtype
        self.model = model
        quantized = kv_cache_dtype.startswith("fp8")
        width = DS_MLA_BYTES if kv_cache_dtype == "fp8_ds_mla" else model.latent_dim
        self.blocks = torch.empty(
            (num_blocks, block_size, width),
            dtype=torch.uint8 if quantized else dtype,
            device=device,
        )

    def fill(self, store: Store, generator: "torch.Generator", dtype: "torch.dtype") -> None:
        """Write normal random latents into every slot, through the layer's own writer if fp8."""
        import torch

        if self.blocks.dtype == dtype:
            self.blocks.normal_(generator=generator)
            return
        rank, device = self.model.kv_lora_rank, self.blocks.device
        for first in range(0, self.num_slots, CHUNK_TOKENS):
            slots = torch.arange(first, min(first + CHUNK_TOKENS, self.num_slots), device=device)
            latents = torch.randn(
                (len(slots), self.model.latent_dim), generator=generator, device=device
            ).to(dtype)
            rotary = latents[:, rank:].contiguous().unsqueeze(1)
            store(latents[:, :rank].contiguous(), rotary, self.blocks, slots)

    @property
    def num_slots(self) -> int:
        return self.blocks.shape[0] * self.block_size

    def latents(self, slots: "torch.Tensor") -> "torch.Tensor":
        """What the cache holds at ``slots`` (int64), ``[len(slots), latent_dim]`` in float64."""
        import torch

        rows = self.blocks.view(self.num_slots, -1)[slots]
        if self.kv_cache_dtype == "fp8_ds_mla":
            rank = self.model.kv_lora_rank
            values = rows[:, :rank].contiguous().view(torch.float8_e4m3fn).double()
            scales_end = rank + rank // DS_MLA_TILE * 4
            scales = rows[:, rank:scales_end].contiguous().view(torch.float32).double()
            rotary = rows[:, scales_end:].contiguous().view(torch.bfloat16).double()
            return torch.cat([values * scales.repeat_interleave(DS_MLA_TILE, dim=1), rotary], 1)
        if rows.dtype == torch.uint8:
            return rows.view(torch.float8_e4m3fn).double()
        return rows.double()


@dataclass(frozen=True)
class Batch:
    """The inputs of one shape, requests with the shortest queries first.

    Attributes:
        requests: (query_len, kv_len) of each.
        query: ``[num_query_tokens, num_q_heads, qk_head_dim]``.
        kv_c, k_pe: the new tokens' latents, ``[num_query_tokens, kv_lora_rank]`` and
            ``[num_query_tokens, 1, qk_rope_head_dim]``; the cache holds them as well.
        block_table: int32 ``[num_requests, width]``, as many blocks as max_model_len needs and up
            to a multiple of 128 tokens, padded with block 0.
        output: ``[num_query_tokens, num_q_heads * v_head_dim]``, shared by all plans.
        query_start, kv_lens: int32 on the CPU; vLLM wants both there and on the device.
        slots: int64, where the new tokens stand in the cache.
        topk: int32 ``[num_query_tokens, index_topk]`` for sparse backends, padded with -1.
    """

    requests: tuple[tuple[int, int], ...]
    query: "torch.Tensor"
    kv_c: "torch.Tensor"
    k_pe: "torch.Tensor"
    block_table: "torch.Tensor"
    output: "torch.Tensor"
    query_start: "torch.Tensor"
    kv_lens: "torch.Tensor"
    slots: "torch.Tensor"
    topk: "torch.Tensor | None"

    def metadata(self, max_seq_len: int) -> Any:
        """Make the `CommonAttentionMetadata`; ``max_seq_len`` is the engine's in graph mode."""
        device = self.query.device
        query_lens = self.query_start.diff()
        return layers.common_metadata(
            query_start_loc=self.query_start.to(device),
            query_start_loc_cpu=self.query_start,
            seq_lens=self.kv_lens.to(device),
            seq_lens_cpu_upper_bound=self.kv_lens,
            _seq_lens_cpu=self.kv_lens,
            _num_computed_tokens_cpu=self.kv_lens - query_lens,
            num_reqs=len(self.requests),
            num_actual_tokens=self.query.shape[0],
            max_query_len=int(query_lens.max()),
            max_seq_len=max_seq_len,
            block_table_tensor=self.block_table,
            slot_mapping=self.slots,
            causal=True,
        )

    def contexts(self, rows: Sequence[int]) -> list[int]:
        """How many tokens of its request stand up to each query token, itself included."""
        import torch

        tokens = torch.tensor(rows, dtype=torch.int32)
        _, positions = _places(self.query_start, self.kv_lens, tokens)
        return (positions + 1).tolist()

    def visible(self, rows: Sequence[int], block_size: int) -> "torch.Tensor":
        """The slots that query tokens attend to, int64 ``[len(rows), num_tokens]``.

        Args:
            rows: query tokens with equal `contexts`.
            block_size: of the cache.
        """
        import torch

        tokens = torch.tensor(rows, dtype=torch.int32)
        requests, positions = _places(self.query_start, self.kv_lens, tokens)
        device, length = self.block_table.device, int(positions[0]) + 1
        requests = requests.to(device)
        blocks = self.block_table[requests, : -(-length // block_size)].long()
        within = torch.arange(block_size, device=device)
        slots = (blocks.unsqueeze(2) * block_size + within).flatten(1)
        if self.topk is None:
            return slots[:, :length]
        seen = min(length, self.topk.shape[1])
        return slots.gather(1, self.topk[rows, :seen].long())


def make_batch(
    shape: BatchShape,
    cache: LatentCache,
    max_model_len: int,
    index_topk: int | None,
    dtype: "torch.dtype",
) -> Batch:
    """Draw the inputs of ``shape``; the same shape gets the same inputs every time."""
    import torch

    device, model, requests = cache.blocks.device, cache.model, tuple(shape.requests())
    seed = zlib.crc32(str(shape).encode())
    generator = torch.Generator(device=device).manual_seed(seed)
    query_lens, kv_lens = torch.tensor(requests, dtype=torch.int32).T.contiguous()
    query_start = torch.zeros(len(requests) + 1, dtype=torch.int32)
    query_start[1:] = query_lens.cumsum(0)
    tokens, rank = shape.num_query_tokens, model.kv_lora_rank
    new_tokens = torch.arange(tokens, dtype=torch.int32)
    owners, positions = _places(query_start, kv_lens, new_tokens)
    block_table = _block_table(kv_lens.to(device), cache, max_model_len, seed)
    slots = _slots(block_table, owners.to(device), positions.to(device), cache.block_size)
    query_size = (tokens, model.num_q_heads, model.qk_head_dim)
    # The new tokens as the cache holds them: both paths then see the same values.
    latents = cache.latents(slots).to(dtype)
    topk = None
    if index_topk is not None:
        topk = topk_indices(requests, index_topk, generator)
    return Batch(
        requests=requests,
        query=torch.randn(query_size, generator=generator, device=device).to(dtype),
        kv_c=latents[:, :rank].contiguous(),
        k_pe=latents[:, rank:].contiguous().unsqueeze(1),
        block_table=block_table,
        output=torch.zeros(
            tokens, model.num_q_heads * model.v_head_dim, dtype=dtype, device=device
        ),
        query_start=query_start,
        kv_lens=kv_lens,
        slots=slots,
        topk=topk,
    )


def _block_table(
    kv_lens: "torch.Tensor", cache: LatentCache, max_model_len: int, seed: int
) -> "torch.Tensor":
    """Give every request blocks in random order, as after hours of serving.

    On the device, and without a loop: a workload took a GPU's host 0.50 s to load, and 0.82 s
    beside another worker that did the same (H200, up to 336 requests).
    """
    import torch

    device = kv_lens.device
    generator = torch.Generator(device=device).manual_seed(seed)
    num_free = cache.blocks.shape[0] - 1
    free = torch.randperm(num_free, generator=generator, device=device, dtype=torch.int32) + 1
    multiple = TABLE_TOKENS // math.gcd(TABLE_TOKENS, cache.block_size)
    width = multiple * -(-max_model_len // (multiple * cache.block_size))
    counts = -(-kv_lens // cache.block_size)
    is_used = torch.arange(width, device=device) < counts.unsqueeze(1)
    return torch.zeros_like(is_used, dtype=torch.int32).masked_scatter_(is_used, free)


def _places(
    query_start: "torch.Tensor", kv_lens: "torch.Tensor", tokens: "torch.Tensor"
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """The request of each of ``tokens``, and its position in it, both int64."""
    import torch

    requests = torch.searchsorted(query_start, tokens, right=True) - 1
    return requests, (tokens + (kv_lens - query_start[1:])[requests]).long()


def _slots(
    block_table: "torch.Tensor",
    requests: "torch.Tensor",
    positions: "torch.Tensor",
    block_size: int,
) -> "torch.Tensor":
    """Where tokens stand in the cache, int64."""
    blocks = block_table[requests, positions // block_size].long()
    return blocks * block_size + positions % block_size


def topk_indices(
    requests: tuple[tuple[int, int], ...], topk: int, generator: "torch.Generator"
) -> "torch.Tensor":
    """Draw the tokens that each query attends to, as an indexer would leave them.

    Returns:
        int32 ``[num_query_tokens, topk]``: positions within the request, distinct, in random
        order, none beyond the query's own position; -1 where fewer than ``topk`` are visible.
    """
    import torch

    device = generator.device
    rows = []
    for query_len, kv_len in requests:
        at_once = max(1, CHUNK_SCORES // kv_len)
        for first in range(kv_len - query_len, kv_len, at_once):
            last = min(first + at_once, kv_len)
            scores = torch.rand((last - first, kv_len), generator=generator, device=device)
            positions = torch.arange(first, last, device=device).unsqueeze(1)
            hidden = torch.arange(kv_len, device=device).unsqueeze(0) > positions
            best = scores.masked_fill_(hidden, -1.0).topk(min(topk, kv_len), dim=1)
            chosen = torch.where(best.values >= 0, best.indices, -1).to(torch.int32)
            padding = topk - chosen.shape[1]
            rows.append(torch.nn.functional.pad(chosen, (0, padding), value=-1))
    return torch.cat(rows)
