"""A small TORCH_MLA on the CPU, and its attention computed again in NumPy."""

import numpy as np
import torch

from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, MlaDimensions

MODEL = MlaDimensions(
    num_q_heads=2, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16
)
SETUP = Setup("TORCH_MLA", MODEL)


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.to(torch.float64).numpy()


def float64_attention(session, shape: BatchShape) -> np.ndarray:
    """``[num_query_tokens, num_q_heads * v_head_dim]``, by the textbook, head by head."""
    batch = session._batches[shape]
    nope, rank = MODEL.qk_nope_head_dim, MODEL.kv_lora_rank
    w_uk, w_uv = array(session.weights.w_uk), array(session.weights.w_uv)
    blocks, query = array(batch.cache.blocks), array(batch.query)
    rows, token = [], 0
    for request, (query_len, kv_len) in enumerate(batch.requests):
        pages = blocks[batch.cache.table[request].numpy()]
        latents = pages.reshape(-1, MODEL.latent_dim)[:kv_len]
        for position in range(kv_len - query_len, kv_len):
            seen = latents[: position + 1]
            heads = []
            for head in range(MODEL.num_q_heads):
                keys = np.concatenate([seen[:, :rank] @ w_uk[head].T, seen[:, rank:]], axis=1)
                assert keys.shape[1] == nope + MODEL.qk_rope_head_dim
                scores = keys @ query[token, head] / np.sqrt(keys.shape[1])
                shares = np.exp(scores - scores.max())
                heads.append(shares / shares.sum() @ (seen[:, :rank] @ w_uv[head]))
            rows.append(np.concatenate(heads))
            token += 1
    return np.stack(rows)
