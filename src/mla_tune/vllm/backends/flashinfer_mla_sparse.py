"""FLASHINFER_MLA_SPARSE: FlashInfer's decode over the top-k tokens of an indexer."""

__all__ = ["BACKEND"]

from mla_tune.plan.blocks import BlockSizes
from mla_tune.vllm.backend import VllmBackend
from mla_tune.vllm.digests import Package, Source
from mla_tune.vllm.prefill import SPARSE_PREFILL_PARTS

BACKEND = VllmBackend(
    name="FLASHINFER_MLA_SPARSE",
    aliases=("flashinfer_mla_sparse",),
    module="flashinfer_mla_sparse",
    majors=(10,),
    sparse=True,
    prefill_parts=SPARSE_PREFILL_PARTS,
    extension="flashinfer",
    package="flashinfer",
    decode_parts=(
        Package("flashinfer-cubin"),
        Source("v1/attention/backends/mla/flashinfer_mla_sparse.py"),
    ),
    blocks=BlockSizes((32,), multiples=True),
)
