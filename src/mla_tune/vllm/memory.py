"""Device memory that a layer of vLLM needs for one batch, in bytes, before any allocation.

Batches that are loaded together page through one cache and share vLLM's workspaces; inputs, outputs
and captured graphs each has of its own.
"""

__all__ = [
    "absorbed_bytes",
    "batch_bytes",
    "bytes_per_split",
    "cache_bytes",
    "latent_bytes",
    "no_splits",
    "prefill_bytes",
]

from mla_tune.session import Setup
from mla_tune.shapes import BatchShape

# Rows of the buffer that a prefill's context is gathered into, chunk by chunk, in every release.
CONTEXT_ROWS = 64 * 1024
# Every plan of a batch has a graph. All share a pool of memory (`GraphReplay`): what one of them
# allocates is there for the next. The margin is of before, when each graph of TRITON_MLA's twelve
# split counts had a pool of its own.
GRAPHS_A_BATCH = 12


def cache_bytes(setup: Setup, shape: BatchShape, block_size: int) -> int:
    """The latents."""
    model = setup.model
    blocks = 1 + sum(g.count * -(-g.kv_len // block_size) for g in shape.groups)
    width = latent_bytes(setup.kv_cache_dtype, model.latent_dim)
    # The cache is filled from random values that are drawn in pieces, in float32.
    return blocks * block_size * width + 2**28


def latent_bytes(kv_cache_dtype: str, latent_dim: int) -> int:
    """What one layer's KV cache holds of a token."""
    if kv_cache_dtype.startswith("fp8"):
        return {"fp8_ds_mla": 656}.get(kv_cache_dtype, latent_dim)
    return 2 * latent_dim


def batch_bytes(setup: Setup, shape: BatchShape, block_size: int, *, sparse: bool) -> int:
    """Block table, queries, outputs, and indices of a sparse backend."""
    model, tokens = setup.model, shape.num_query_tokens
    table = shape.num_requests * -(-setup.max_model_len // block_size) * 4
    per_token = 2 * model.num_q_heads * (model.qk_head_dim + model.v_head_dim)
    # Drawn in float32 first, and the correctness check holds the output in float64 twice.
    per_token += model.num_q_heads * (4 * model.qk_head_dim + 16 * model.v_head_dim)
    indices = 8 * setup.index_topk * tokens if sparse else 0
    return table + tokens * per_token + indices


def absorbed_bytes(setup: Setup, shape: BatchShape) -> int:
    """The absorbed query of the decode path, and its result, of each graph in graph mode."""
    model, graphs = setup.model, GRAPHS_A_BATCH if setup.mode == "graph" else 1
    per_token = 2 * 2 * model.num_q_heads * (model.latent_dim + model.kv_lora_rank)
    return graphs * shape.num_query_tokens * per_token


def bytes_per_split(num_heads: int, kv_lora_rank: int) -> int:
    """The partial result of one split of one query token, with its log-sum-exp, in float32."""
    return num_heads * (kv_lora_rank + 1) * 4


def no_splits(setup: Setup, shape: BatchShape) -> int:
    """The partial results of a kernel that cuts nothing, or keeps them to itself: 0."""
    del setup, shape
    return 0


def prefill_bytes(setup: Setup, shape: BatchShape, *, sparse: bool) -> int:
    """The gathered context, and keys and values up-projected from it and from new tokens."""
    model = setup.model
    workspace = CONTEXT_ROWS * model.latent_dim * 2
    if sparse:
        workspace += 5 * setup.max_model_len * model.latent_dim * 2
    if shape.max_query_len == 1:
        return workspace
    rows = min(CONTEXT_ROWS, shape.num_kv_tokens) + shape.num_query_tokens
    # kv_b_proj's result, the assembled keys, and values padded to the keys' width.
    up_projected = model.qk_nope_head_dim + model.v_head_dim + 2 * model.qk_head_dim
    partial = 3 * shape.num_query_tokens * model.num_q_heads * model.qk_head_dim * 2
    return workspace + rows * model.num_q_heads * up_projected * 2 + partial
