"""Memory that TORCH_MLA needs for one batch, in bytes, known without loading torch."""

__all__ = ["LONGEST_DECODE_QUERY", "WORKSPACE_BYTES", "shape_bytes"]

from mla_tune.session import Setup
from mla_tune.shapes import BatchShape

# Scores of the decode path are materialised; requests beyond this are handled in turns.
WORKSPACE_BYTES = 256 * 2**20
# The decode path writes out its scores, so that long queries cost memory and never win.
LONGEST_DECODE_QUERY = 128


def shape_bytes(setup: Setup, shape: BatchShape) -> int:
    """Cache and its gathered copy, queries and outputs, and the larger path's temporaries."""
    model = setup.model
    per_value = 4 if setup.device == "cpu" else 2
    cache = shape.num_kv_tokens * model.latent_dim * per_value
    activations = model.qk_head_dim + model.v_head_dim
    tokens = shape.num_query_tokens * model.num_q_heads * activations * per_value
    # Keys, values, and the padded copy of the values, of one group of equal requests.
    per_token = model.num_q_heads * 4 * model.qk_head_dim * per_value
    extended = [group for group in shape.groups if group.query_len > 1]
    up_projected = max((group.count * group.kv_len for group in extended), default=0)
    scores = max(
        model.num_q_heads * min(g.query_len, LONGEST_DECODE_QUERY) * g.kv_len * 4
        for g in shape.groups
    )
    decode = 3 * max(WORKSPACE_BYTES, scores)
    return 2 * cache + 3 * tokens + up_projected * per_token + decode
