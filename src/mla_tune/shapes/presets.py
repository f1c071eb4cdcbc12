"""The models whose dimensions are known by name.

From the models' config.json, and where that leaves a value out from transformers' class.
"""

__all__ = ["PRESETS", "SPARSE_PRESETS", "USUAL_INDEX_TOPK", "preset_name"]

import re

from mla_tune.shapes.model import MlaDimensions

_V3 = MlaDimensions(num_q_heads=128)

PRESETS: dict[str, MlaDimensions] = {
    "deepseek-v2-lite": MlaDimensions(num_q_heads=16),
    "deepseek-v2": _V3,
    "deepseek-v2.5": _V3,
    "deepseek-v3": _V3,
    "deepseek-v3.1": _V3,
    "deepseek-v3.2": _V3,
    "deepseek-r1": _V3,
    "dots3-note": _V3,
    "openpangu-ultra": _V3,
    "kimi-k2": MlaDimensions(num_q_heads=64),
    "kimi-k2.5": MlaDimensions(num_q_heads=64),
    "kimi-k2.6": MlaDimensions(num_q_heads=64),
    "kimi-k3": MlaDimensions(num_q_heads=96),
    "kimi-linear": MlaDimensions(num_q_heads=32),
    "longcat-flash": MlaDimensions(num_q_heads=64),
    "sarvam-mla": MlaDimensions(num_q_heads=64),
    "a.x-k1": MlaDimensions(num_q_heads=64),
    "ling": MlaDimensions(num_q_heads=32),
    "youtu": MlaDimensions(num_q_heads=16),
    "glm-4.7-flash": MlaDimensions(20, 512, 192, 64, 256),
    "glm-5": MlaDimensions(64, 512, 192, 64, 256),
    "glm-5.1": MlaDimensions(64, 512, 192, 64, 256),
    "glm-5.2": MlaDimensions(64, 512, 192, 64, 256),
    "glm-5.3-flash": MlaDimensions(64, 512, 256, 0, 256),
    "hy-v4": MlaDimensions(32, 512, 192, 64, 256),
    "hy-v4-vl": MlaDimensions(64, 512, 192, 64, 256),
    "mistral-small-4": MlaDimensions(32, 256, 64, 64, 128),
    "mistral-large-4": MlaDimensions(64, 512, 64, 64, 128),
    "minicpm3": MlaDimensions(40, 256, 64, 32, 64),
}

USUAL_INDEX_TOPK = 2048

# How many tokens the indexer of DeepSeek's sparse attention picks.
SPARSE_PRESETS: dict[str, int] = dict.fromkeys(
    (
        *("deepseek-v3.2", "dots3-note", "mistral-large-4", "hy-v4", "hy-v4-vl"),
        *("glm-5", "glm-5.1", "glm-5.2", "glm-5.3-flash"),
    ),
    USUAL_INDEX_TOPK,
)

# What checkpoints of one model are told apart by, and its attention is not: how they were trained
# further, a date (0324), the format of the weights.
_VARIANT = re.compile(
    r"-(instruct|chat|base|thinking|exp|terminus|zero|moe|llm|\d{4}"
    r"|fp8|fp4|nvfp4|mxfp4|bf16|awq|gptq|int4|int8|w4a16|w8a8)$"
)


def preset_name(name: str) -> str | None:
    """The preset that a model's name as people write it means, or None.

    Case and the owner before a slash do not count, nor ``_`` for ``-``, nor endings that tell
    checkpoints of one model apart. What follows otherwise may be another model:
    DeepSeek-R1-Distill-Qwen-7B has no latent attention at all.

    Examples:
        >>> preset_name("deepseek-ai/DeepSeek-V3-0324")
        'deepseek-v3'
        >>> preset_name("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B")
    """
    # A name has few endings; what has more is a text to be refused quickly.
    found = name.rstrip("/").rpartition("/")[2].lower().replace("_", "-")[:200]
    while found not in PRESETS:
        shorter = _VARIANT.sub("", found)
        if shorter == found:
            return None
        found = shorter
    return found
