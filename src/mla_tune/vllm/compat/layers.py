"""How the layer, the impl, the builder and its metadata are spoken to, release by release."""

__all__ = [
    "announce_topk",
    "attention_layer",
    "common_metadata",
    "decodes_uniform",
    "divided",
    "is_sparse",
    "query_len_support",
    "sparse_prefill_path",
    "takes_fp8_queries",
]

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from mla_tune.errors import UnavailableError
from mla_tune.vllm import compat

_MLA_LAYER = "vllm.model_executor.layers.attention.mla_attention"


def attention_layer(backend_cls: Any, arguments: Mapping[str, Any], indexer: Any | None) -> Any:
    """Construct the real `MLAAttention`.

    0.20 finds its backend through ``attention_config.backend``; later ones are told. Sparse
    layers take the top-k buffer by itself since 0.26.
    """
    layer_cls = compat.symbol(_MLA_LAYER, "MLAAttention")
    offered = inspect.signature(layer_cls.__init__).parameters
    extra: dict[str, Any] = {}
    if "attn_backend" in offered:
        extra["attn_backend"] = backend_cls
    if indexer is not None:
        extra |= {"use_sparse": True, "indexer": indexer}
        if "topk_indices_buffer" in offered:
            extra["topk_indices_buffer"] = indexer.topk_indices_buffer
    return layer_cls(**arguments, **extra)


def takes_fp8_queries(layer: Any) -> bool:
    """Whether the layer rounds decode queries to fp8, as ``MLAAttention.forward_impl`` decides.

    TRITON_MLA and the sparse FLASHMLA read an fp8 cache with 16-bit queries.
    """
    quantized = str(layer.kv_cache_dtype).startswith("fp8")
    return quantized and bool(getattr(layer.impl, "supports_quant_query_input", False))


def is_sparse(impl: Any) -> bool:
    """Whether ``impl`` attends to top-k tokens. 0.20 tells by a base class."""
    if hasattr(impl, "is_sparse"):
        return bool(impl.is_sparse)
    return isinstance(impl, compat.symbol("vllm.v1.attention.backend", "SparseMLAAttentionImpl"))


def announce_topk(impl: Any) -> None:
    """Tell the impl that the top-k indices are written, as an indexer does.

    0.32 and later convert them on a side stream behind this event; a capture would fail without.
    """
    group: Any = getattr(impl, "index_group", None)
    if hasattr(group, "set_logical_topk_ready"):
        group.set_logical_topk_ready(impl.index_group_index)


def sparse_prefill_path(layer: Any) -> str:
    """What a sparse backend does with prefill tokens whose context is within the top-k.

    ``mqa``: they take the sparse kernel like all others (0.20, and no prefill backend). ``mha``:
    dense attention. ``either``: on compute capability 10 newer releases decide by a table of
    their own (``_use_masked_mha``).
    """
    if getattr(layer, "prefill_backend", None) is None:
        return "mqa"
    return "either" if getattr(layer.impl, "masked_mha_available", False) else "mha"


def common_metadata(**fields: Any) -> Any:
    """`CommonAttentionMetadata`, with those of ``fields`` that this release has."""
    try:
        cls = compat.symbol("vllm.v1.attention.backend", "CommonAttentionMetadata")
    except UnavailableError:
        cls = compat.symbol("vllm.v1.attention.backends.utils", "CommonAttentionMetadata")
    known = {field.name for field in dataclasses.fields(cls)}
    # Private copies of the lengths went away after 0.26; they spared a device-to-host copy.
    return cls(**{name: value for name, value in fields.items() if name in known})


def query_len_support(builder: Any) -> str:
    """Which decodes a builder takes: ``single_only``, ``uniform`` or ``varlen``.

    A builder that does not say takes all.
    """
    return str(getattr(getattr(builder, "query_len_support", None), "value", "varlen"))


def decodes_uniform(builder: Any) -> bool:
    """Whether a builder takes only leading requests of one query length as decodes.

    Dense ones say which lengths their kernel takes, sparse ones what they want.
    """
    if hasattr(builder, "query_len_support"):
        return query_len_support(builder) != "varlen"
    return bool(getattr(builder, "require_uniform_decodes", True))


def divided(metadata: Any) -> tuple[int | None, int | None]:
    """The decodes and their tokens of a batch's metadata; the sparse ones of 0.20 do not say."""
    return getattr(metadata, "num_decodes", None), getattr(metadata, "num_decode_tokens", None)
