"""FLASH_ATTN_MLA_SPARSE: FLASH_ATTN_MLA over the top-k tokens of an indexer."""

__all__ = ["BACKEND"]

from mla_tune.plan.blocks import BlockSizes
from mla_tune.vllm.backend import VllmBackend
from mla_tune.vllm.backends.flash_attn_mla import EXTENSION
from mla_tune.vllm.digests import Binary, Source
from mla_tune.vllm.prefill import SPARSE_PREFILL_PARTS

BACKEND = VllmBackend(
    name="FLASH_ATTN_MLA_SPARSE",
    aliases=("flash_attn_mla_sparse", "flashattn_mla_sparse"),
    module="flashattn_mla_sparse",
    majors=(9,),
    kv_cache_dtypes=("auto", "bfloat16"),
    sparse=True,
    prefill_parts=SPARSE_PREFILL_PARTS,
    extension=EXTENSION,
    decode_parts=(
        Binary("vllm_flash_attn/_vllm_fa3_C*.so"),
        Source(
            "vllm_flash_attn/flash_attn_interface.py",
            ("flash_attn_varlen_func", "get_scheduler_metadata"),
        ),
        Source("v1/attention/backends/mla/flashattn_mla_sparse.py"),
    ),
    blocks=BlockSizes((64,), multiples=True),
    plugin_class="mla_tune.vllm.plugin.without_splits.FLASH_ATTN_MLA_SPARSE",
)
