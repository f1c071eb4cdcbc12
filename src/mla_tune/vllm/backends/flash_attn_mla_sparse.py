"""FLASH_ATTN_MLA_SPARSE: FLASH_ATTN_MLA over the top-k tokens of an indexer."""

__all__ = ["BACKEND"]

from mla_tune.plan.blocks import BlockSizes
from mla_tune.vllm.backend import VllmBackend
from mla_tune.vllm.backends.flash_attn_mla import EXTENSION

BACKEND = VllmBackend(
    name="FLASH_ATTN_MLA_SPARSE",
    aliases=("flash_attn_mla_sparse", "flashattn_mla_sparse"),
    module="flashattn_mla_sparse",
    majors=(9,),
    kv_cache_dtypes=("auto", "bfloat16"),
    sparse=True,
    extension=EXTENSION,
    blocks=BlockSizes((64,), multiples=True),
)
