"""FLASHMLA: its kernel cuts the KV cache by a schedule of its own, which has no knob."""

__all__ = ["BACKEND", "EXTENSION"]

from mla_tune.plan.blocks import BlockSizes
from mla_tune.vllm.backend import VllmBackend
from mla_tune.vllm.digests import Binary, Source

EXTENSION = "_flashmla_C*.so"

BACKEND = VllmBackend(
    name="FLASHMLA",
    aliases=("flashmla",),
    module="flashmla",
    majors=(9,),
    extension=EXTENSION,
    decode_parts=(
        Binary("_flashmla_C*.so"),
        Binary("_flashmla_extension_C*.so"),
        Source("v1/attention/ops/flashmla.py", called="ops/flashmla.py"),
        Source("v1/attention/backends/mla/flashmla.py"),
    ),
    blocks=BlockSizes((64,)),
    plugin_class="mla_tune.vllm.plugin.without_splits.FLASHMLA",
)
