"""Run in a process of its own: python sparse_steps.py PLANS SPEC…

Layers and builders of the installed vLLM's sparse backends, with the plugin, over kernels in plain
torch, and the indexer's builder beside them. ``PLANS`` are those of a table, by shape, as JSON.
Prints one JSON object for all backends.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ |= {"CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "1", "VLLM_LOGGING_LEVEL": "ERROR"}

import pretend_h200

from mla_tune.plan.plan import Plan
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape
from mla_tune.table import merge
from mla_tune.vllm.plugin import engine, register
from mla_tune.vllm.session.config import current_config
from one_step import one_step
from tabled_engine import MODEL, cpu_header, entry

NAMES = ("FLASHMLA_SPARSE", "FLASH_ATTN_MLA_SPARSE")
TOPK = 128
MAX_MODEL_LEN = 1024


def main(plans: dict[str, dict[str, Any]], specs: list[str]) -> None:
    pretend_h200.become(major=9)
    os.environ |= {"MLA_TUNE_TABLES": str(write_tables(plans)), "MLA_TUNE_UNPROVEN": "1"}
    register()
    print("REPORT" + json.dumps({name: served(name, specs) for name in NAMES}))


def write_tables(plans: dict[str, dict[str, Any]]) -> Path:
    """Tables that are true for this process; its platform is CUDA's, with no device to ask."""
    folder = Path(tempfile.mkdtemp())
    settings = {"mode": "eager", "max_model_len": MAX_MODEL_LEN, "index_topk": TOPK}
    vllms = Plan(reorder_batch_threshold=128)
    for name in NAMES:
        header = cpu_header(name, "eager", engine=settings)
        entries = [entry(shape, Plan(**plan), default_plan=vllms) for shape, plan in plans.items()]
        merge(folder / f"{name}.yaml", header, entries)
    engine._device = lambda: (header.device.name, None, header.device.sm_count)
    return folder


def served(name: str, specs: list[str]) -> dict[str, Any]:
    setup = Setup(
        name,
        MODEL,
        max_model_len=MAX_MODEL_LEN,
        max_num_requests=4,
        max_num_query_tokens=128,
        index_topk=TOPK,
        device="cpu",
    )
    session = pretend_h200.open_session(setup)
    shapes = [BatchShape.parse(spec) for spec in specs]
    session.load(shapes)
    policy = session.parts.builder.step_policy
    told = {
        "own": policy.thresholds.vllm_own,
        "mixed": policy.thresholds.mixed,
        "steps": {spec: step(session, shape) for spec, shape in zip(specs, shapes, strict=True)},
        "indexer": indexer_divides(session, shapes[:2]),  # Triton's interpreter is slow
        "refused": refused(session.parts.vllm_config),
    }
    counts = policy.deployment.counts
    session.close()
    return told | {n: getattr(counts, n) for n in ("verified", "not_applied", "fallbacks")}


def step(session: Any, shape: BatchShape) -> dict[str, Any]:
    del pretend_h200.KERNEL_CALLS[:]
    metadata, apart = one_step(session, shape)
    return {
        "decodes": metadata.num_decodes,
        "prefills": metadata.num_prefills,
        "own_after": session.parts.builder.reorder_batch_threshold,
        "apart": apart,
        "kernels": sorted({kernel(name, call) for name, call in pretend_h200.KERNEL_CALLS}),
    }


def kernel(name: str, call: dict[str, Any]) -> str:
    """FlashAttention attends to a paged cache by the top-k, and to keys and values densely."""
    is_dense = name == "flash_attn" and not call["paged"]
    return f"dense fa{call['fa_version']}" if is_dense else "top-k"


def indexer_divides(session: Any, shapes: list[BatchShape]) -> list[list[int]]:
    """Decodes and prefills of each shape in the metadata that the indexer's own builder makes."""
    from vllm.v1.attention.backends.mla.indexer import DeepseekV32IndexerMetadataBuilder

    parts = session.parts
    spec = parts.layer.get_kv_cache_spec(parts.vllm_config)
    with current_config(parts.vllm_config):
        builder = DeepseekV32IndexerMetadataBuilder(
            spec, ["indexer"], parts.vllm_config, parts.device, block_table_width=64
        )
        batches = [session._batches[shape].metadata(shape.max_kv_len) for shape in shapes]
        built = [builder.build(0, batch) for batch in batches]
    return [[metadata.num_decodes, metadata.num_prefills] for metadata in built]


def refused(vllm_config: Any) -> dict[str, str | None]:
    """What is said of engines that no table of a sparse backend is for."""
    parallel, attention = vllm_config.parallel_config, vllm_config.attention_config
    said = {"as it is": engine.refusal(vllm_config, sparse=True)}
    for owner, field, value in (
        (vllm_config, "speculative_config", SimpleNamespace()),
        (parallel, "decode_context_parallel_size", 2),
        (attention, "hisparse_config", SimpleNamespace()),
        (attention, "sparse_mla_force_mqa", True),
    ):
        before = getattr(owner, field)
        object.__setattr__(owner, field, value)
        said[field] = engine.refusal(vllm_config, sparse=True)
        object.__setattr__(owner, field, before)
    return said


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])
