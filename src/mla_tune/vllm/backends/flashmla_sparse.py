"""FLASHMLA_SPARSE: FLASHMLA over the top-k tokens of an indexer."""

__all__ = ["BACKEND"]

from mla_tune.plan.blocks import BlockSizes
from mla_tune.session import Setup
from mla_tune.vllm.backend import VllmBackend
from mla_tune.vllm.backends.flashmla import EXTENSION
from mla_tune.vllm.digests import Binary, Source
from mla_tune.vllm.prefill import SPARSE_PREFILL_PARTS

# vLLM's MIN_HEADS_FOR_BF16_PREFILL.
LEAST_HEADS_APART = 32


def _parts_prefills(setup: Setup) -> bool:
    """With an fp8 cache and many heads, prefills are converted to bfloat16 first.

    With fewer heads all tokens go through the decode kernel as one batch.
    """
    return setup.kv_cache_dtype == "fp8_ds_mla" and setup.model.num_q_heads >= LEAST_HEADS_APART


BACKEND = VllmBackend(
    name="FLASHMLA_SPARSE",
    aliases=("flashmla_sparse",),
    module="flashmla_sparse",
    majors=(9, 10),
    kv_cache_dtypes=("auto", "bfloat16", "fp8_ds_mla"),
    sparse=True,
    prefill_parts=SPARSE_PREFILL_PARTS,
    extension=EXTENSION,
    decode_parts=(
        Binary("_flashmla_C*.so"),
        Source("v1/attention/ops/flashmla.py", called="ops/flashmla.py"),
        Source("v1/attention/backends/mla/flashmla_sparse.py"),
    ),
    blocks=BlockSizes((64,)),
    parts_prefills=_parts_prefills,
    plugin_class="mla_tune.vllm.plugin.without_splits.FLASHMLA_SPARSE",
)
