"""FLASHINFER_MLA_SPARSE: FlashInfer's decode over the top-k tokens of an indexer."""

__all__ = ["BACKEND"]

from mla_tune.plan.blocks import BlockSizes
from mla_tune.vllm.backend import VllmBackend

BACKEND = VllmBackend(
    name="FLASHINFER_MLA_SPARSE",
    aliases=("flashinfer_mla_sparse",),
    module="flashinfer_mla_sparse",
    majors=(10,),
    sparse=True,
    extension="flashinfer",
    package="flashinfer",
    blocks=BlockSizes((32,), multiples=True),
)
