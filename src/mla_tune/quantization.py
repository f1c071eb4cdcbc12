"""How the weights of ``kv_b_proj`` are quantized: it decides where prefill beats decode.

Prefill runs ``kv_b_proj`` as it is quantized; decode absorbs it in 16 bits whatever it was. A
faster projection moves the query length at which the two cost the same.
"""

__all__ = [
    "BLOCK",
    "PER_BLOCK",
    "PER_TENSOR",
    "QUANTIZATIONS",
    "UNQUANTIZED",
    "quantization_of",
]

from typing import Any

UNQUANTIZED = "none"
PER_TENSOR = "fp8_per_tensor"
PER_BLOCK = "fp8_per_block"
QUANTIZATIONS = (UNQUANTIZED, PER_TENSOR, PER_BLOCK)

# DeepSeek-V3's weight_block_size, and the only one that vLLM's online quantization has.
BLOCK = (128, 128)

# vLLM's classes of linear methods that run the same kernels, whether a checkpoint brings the
# weights in fp8 or vLLM rounds them while it loads them.
_FP8 = ("Fp8LinearMethod", "Fp8PerTensorOnlineLinearMethod", "Fp8PerBlockOnlineLinearMethod")


def quantization_of(projection: Any) -> str:
    """One of `QUANTIZATIONS` for a linear layer of vLLM, or a name that no table has.

    Read from the layer and not from the engine's configuration: a checkpoint may leave layers
    out, and an online method may skip them.
    """
    while hasattr(getattr(projection, "base_layer", None), "quant_method"):
        projection = projection.base_layer  # a LoRA wrapper
    method = projection.quant_method
    classes = [cls.__name__ for cls in type(method).__mro__]
    if method is None or "UnquantizedLinearMethod" in classes:
        return UNQUANTIZED
    block = getattr(method, "weight_block_size", None)
    config = getattr(method, "quant_config", None)
    scheme = getattr(config, "activation_scheme", "dynamic")
    if any(name in _FP8 for name in classes) and scheme == "dynamic":
        if block is None:
            return PER_TENSOR
        if tuple(block) == BLOCK:
            return PER_BLOCK
    details = [str(part) for part in (block, scheme) if part not in (None, "dynamic")]
    scheme_of_layer = getattr(projection, "scheme", None)  # compressed-tensors
    if scheme_of_layer is not None:
        details.append(type(scheme_of_layer).__name__)
    return " ".join([classes[0], *details])
