"""Deployments and batches for tests that need no vLLM."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from mla_tune.table import Entry, Table
from mla_tune.table.loading import LoadedTable
from mla_tune.vllm.plugin.deployment import Deployment
from tabled_engine import ENGINE, H200, header

KNOBS = ("reorder_batch_threshold", "num_kv_splits", "prefill_backend")


def deployed(
    *eager: Entry, graph: tuple[Entry, ...] = (), captures: tuple[tuple[int, int], ...] = ()
) -> Deployment:
    """A deployment on an H200 with a table of each mode that has entries."""
    tables = {
        mode: LoadedTable(
            Path(f"{mode}.yaml"), Table(header(engine=ENGINE | {"mode": mode}), entries)
        )
        for mode, entries in (("eager", eager), ("graph", graph))
        if entries
    }
    return Deployment(H200, KNOBS, tables, captures)


def batch(count: int, query_len: int, kv_len: int, **changes: Any) -> Any:
    """A uniform CommonAttentionMetadata, as far as the plugin reads it."""
    fields = {
        "num_reqs": count,
        "max_query_len": query_len,
        "num_actual_tokens": count * query_len,
        "max_seq_len": kv_len,
        "seq_lens_cpu_upper_bound": torch.full((count,), kv_len, dtype=torch.int32),
    }
    return SimpleNamespace(**fields | changes)


def built(decodes: int, prefills: int, query_len: int, **changes: Any) -> Any:
    """The metadata of a batch, as far as the plugin reads it."""
    fields = {
        "num_decodes": decodes,
        "num_prefills": prefills,
        "num_decode_tokens": decodes * query_len,
        "max_query_len": query_len,
    }
    return SimpleNamespace(**fields | changes)
