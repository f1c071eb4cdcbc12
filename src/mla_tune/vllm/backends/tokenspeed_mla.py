"""TOKENSPEED_MLA: fp8 alone; its package is pinned exactly by each vLLM release, which tells it."""

__all__ = ["BACKEND"]

from mla_tune.plan.blocks import BlockSizes
from mla_tune.vllm.backend import VllmBackend

BACKEND = VllmBackend(
    name="TOKENSPEED_MLA",
    aliases=("tokenspeed_mla",),
    module="tokenspeed_mla",
    majors=(10,),
    kv_cache_dtypes=("fp8", "fp8_e4m3"),
    extension="tokenspeed_mla",
    blocks=BlockSizes((32, 64)),
    plugin_class="mla_tune.vllm.plugin.without_splits.TOKENSPEED_MLA",
)
