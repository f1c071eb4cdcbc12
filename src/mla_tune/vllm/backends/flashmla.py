"""FLASHMLA: its kernel cuts the KV cache by a schedule of its own, which has no knob."""

__all__ = ["BACKEND", "EXTENSION"]

from mla_tune.plan.blocks import BlockSizes
from mla_tune.vllm.backend import VllmBackend

EXTENSION = "_flashmla_C*.so"

BACKEND = VllmBackend(
    name="FLASHMLA",
    aliases=("flashmla",),
    module="flashmla",
    majors=(9,),
    extension=EXTENSION,
    blocks=BlockSizes((64,)),
    plugin_class="mla_tune.vllm.plugin.without_splits.FLASHMLA",
)
