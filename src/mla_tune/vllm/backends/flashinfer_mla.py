"""FLASHINFER_MLA: the package flashinfer's decode kernels, which have no split count to set."""

__all__ = ["BACKEND"]

from mla_tune.plan.blocks import BlockSizes
from mla_tune.vllm.backend import VllmBackend
from mla_tune.vllm.digests import Package, Source

BACKEND = VllmBackend(
    name="FLASHINFER_MLA",
    aliases=("flashinfer_mla",),
    module="flashinfer_mla",
    majors=(10,),
    extension="flashinfer",
    package="flashinfer",
    decode_parts=(
        Package("flashinfer-cubin"),
        Source("v1/attention/backends/mla/flashinfer_mla.py"),
    ),
    blocks=BlockSizes((32, 64)),
    plugin_class="mla_tune.vllm.plugin.without_splits.FLASHINFER_MLA",
)
