"""The models of `bench_engine.py`: DeepSeek's attention, few layers, dummy weights."""

import json
from pathlib import Path
from typing import Any

from mla_tune.shapes.presets import USUAL_INDEX_TOPK

LAYERS = 8
VOCABULARY = 16384


# What DeepSeek-V3.2 has beside that: an indexer, which reads what q_b_proj does.
SPARSE = {
    "architectures": ["DeepseekV32ForCausalLM"],
    "model_type": "deepseek_v32",
    "q_lora_rank": 1536,
    "index_topk": USUAL_INDEX_TOPK,
    "index_n_heads": 64,
    "index_head_dim": 128,
}


def write_model(folder: Path, heads: int, max_model_len: int, *, sparse: bool = False) -> None:
    """A config.json of DeepSeek-V2-Lite's attention, or of V3.2's; no layer has experts."""
    config: dict[str, Any] = {
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        "hidden_size": 2048,
        "intermediate_size": 10944,
        "moe_intermediate_size": 1408,
        "num_hidden_layers": LAYERS,
        "first_k_dense_replace": LAYERS,
        "moe_layer_freq": 1,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "num_experts_per_tok": 6,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "scoring_func": "softmax",
        "norm_topk_prob": False,
        "routed_scaling_factor": 1.0,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "q_lora_rank": None,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": max_model_len,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "bfloat16",
        **(SPARSE if sparse else {}),
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


WIDER = 40.0


def trained(model: Any) -> None:
    """Bring dummy weights, in place, to where trained ones are.

    vLLM draws all of them within 1e-3, the norms' included: attention is then all but uniform,
    and the logits do not feel the context. Each storage is scaled once: the absorbed projections
    are parameters too, views of ``kv_b_proj`` in some releases and copies in others. Scaled twice,
    softmax is so sharp that rounding alone decides the logits.
    """
    scaled = set()
    # The whole before its views.
    for parameter in sorted(model.parameters(), key=lambda found: -found.numel()):
        storage = parameter.untyped_storage().data_ptr()
        if not parameter.is_floating_point() or storage in scaled:
            continue
        scaled.add(storage)
        if parameter.ndim > 1:
            parameter.data.mul_(WIDER)
        else:
            parameter.data.fill_(1.0)
