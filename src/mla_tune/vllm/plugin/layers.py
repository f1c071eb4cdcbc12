"""The attention layers that one backend serves, as their own objects tell it.

The engine's configuration is not enough: ``kv_cache_dtype_skip_layers`` gives layers another cache,
a checkpoint may leave ``kv_b_proj`` unquantized, and a hybrid model's blocks are cut anew for each
kind of layer.
"""

__all__ = ["ServedLayers", "plain_dtype"]

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mla_tune.quantization import quantization_of

# Names of 16-bit caches: what the activations are, unless said otherwise.
_SAME_AS_ACTIVATIONS = ("bfloat16", "float16", "half")
_DIMENSIONS = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")


@dataclass(frozen=True)
class ServedLayers:
    """What a table's header says of a layer. Layers that differ give a value that no table has.

    Attributes:
        model: num_q_heads on this GPU and the four MLA dimensions.
        kv_cache_dtype: vLLM's name; 16-bit names that only repeat the activations' are ``auto``.
        quantization: of ``kv_b_proj``, as `mla_tune.quantization` names it.
        block_size: tokens in a block of their KV cache, as the kernels see it; None while vLLM
            has not chosen it yet.
    """

    model: tuple[tuple[str, int], ...]
    kv_cache_dtype: str
    quantization: str
    block_size: int | None

    @classmethod
    def of_builder(cls, builder: Any) -> "ServedLayers":
        """The layers that a metadata builder of vLLM builds for.

        Raises:
            KeyError, AttributeError: they are not where vLLM keeps its layers.
        """
        context = builder.vllm_config.compilation_config.static_forward_context
        layers = [context[name] for name in builder.layer_names]
        return cls(
            model=_model(_heads(builder), builder.mla_dims),
            kv_cache_dtype=_common(plain_dtype(layer.kv_cache_dtype) for layer in layers),
            quantization=_common(quantization_of(layer.kv_b_proj) for layer in layers),
            block_size=int(builder.kv_cache_spec.block_size),
        )

    @classmethod
    def of_impl(cls, impl: Any, *, block_size: int | None) -> "ServedLayers":
        """The layer of an impl, before there is any builder. Raises as `of_builder` does."""
        return cls(
            model=_model(impl.num_heads, impl),
            kv_cache_dtype=plain_dtype(impl.kv_cache_dtype),
            quantization=quantization_of(impl.kv_b_proj),
            block_size=block_size,
        )


def _heads(builder: Any) -> int:
    """On this GPU. FLASH_ATTN_MLA_SPARSE's builder does not keep them."""
    if hasattr(builder, "num_heads"):
        return int(builder.num_heads)
    config = builder.vllm_config
    return int(config.model_config.get_num_attention_heads(config.parallel_config))


def _model(num_heads: int, dims: Any) -> tuple[tuple[str, int], ...]:
    return (("num_q_heads", int(num_heads)), *((n, int(getattr(dims, n))) for n in _DIMENSIONS))


def plain_dtype(kv_cache_dtype: Any) -> str:
    """VLLM's name of a KV cache dtype, as tables have it."""
    return "auto" if str(kv_cache_dtype) in _SAME_AS_ACTIVATIONS else str(kv_cache_dtype)


def _common(values: Iterable[str]) -> str:
    return "_and_".join(sorted(set(values)))
