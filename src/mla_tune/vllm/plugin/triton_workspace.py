"""TRITON_MLA's part of vLLM's shared workspace, no larger than the tables need."""

__all__ = ["RESERVE", "keeps_vllms_splits", "reserve", "take"]

import logging
from typing import Any

import vllm.v1.attention.backends.mla.triton_mla as vllm_triton_mla

from mla_tune.vllm import workspace
from mla_tune.vllm.memory import bytes_per_split
from mla_tune.vllm.plugin.deployment import Deployment
from mla_tune.vllm.plugin.splits import row_splits_needed
from mla_tune.vllm.plugin.state import once
from mla_tune.vllm.triton_splits import SplitRule

# 0.33 reserves in a function of the module that the builder's __init__ calls, 0.26 to 0.32 in a
# method, 0.20 not at all.
RESERVE = "_reserve_attn_logits_workspace"


def reserve(deployment: Deployment, rows: int, kv_lora_rank: int) -> int | None:
    """Reserve vLLM's shared workspace for the splits the table can ask for.

    Args:
        rows: the most rows of queries of any decode step.
        kv_lora_rank: width of a partial result, less its log-sum-exp.

    Returns:
        Rows x splits that fit, or None when vLLM should reserve as ever: no table, no workspace
        manager, or several slots.
    """
    manager = workspace.manager()
    if deployment.lookups is None or manager is None or keeps_vllms_splits():
        return None
    heads = dict(deployment.facts.model)["num_q_heads"]
    rule = SplitRule.of_any_count(deployment.facts.sm_count)
    own_splits = rule.splits(deployment.facts.max_model_len)
    row_splits = row_splits_needed(
        [
            (batch * query_len, _askable(choice.plan.number("num_kv_splits"), rule) or own_splits)
            for (batch, query_len), choice in deployment.planned.items()
        ],
        deployment.lookups.splits_wanted(),
        rows=rows,
        vllm_splits=own_splits,
        num_heads=heads,
        kv_lora_rank=kv_lora_rank,
        sm_count=deployment.facts.sm_count,
    )
    take(manager, row_splits, heads, kv_lora_rank)
    gib = bytes_per_split(heads, kv_lora_rank) / 2**30
    own = rows * own_splits
    once(
        logging.INFO,
        f"mla-tune: TRITON_MLA workspace {row_splits * gib:.2f} GiB, not {own * gib:.2f} GiB: "
        f"{(own - row_splits) * gib:.2f} GiB given back",
    )
    return row_splits


def take(manager: Any, row_splits: int, heads: int, kv_lora_rank: int) -> None:
    """Have vLLM's workspace ``manager`` hold at least ``row_splits``, as `reserve` says."""
    import torch

    manager.get_simultaneous(((row_splits, heads, kv_lora_rank + 1), torch.float32))


def keeps_vllms_splits() -> bool:
    """Whether vLLM reserves a workspace and keeps several of them, which rules out our counts.

    vLLM reserves in the slot that a builder is made in. Another microbatch's or lane's slot gets
    the size of what ran in it before the workspace was locked: with fewer splits than vLLM's own
    there, a later step with vLLM's own would not fit ("Workspace is locked").
    """
    reserves = hasattr(vllm_triton_mla, RESERVE) or hasattr(
        vllm_triton_mla.TritonMLABackend.get_builder_cls(), RESERVE
    )
    return reserves and workspace.slots() > 1


def _askable(splits: int | None, rule: SplitRule) -> int | None:
    return splits if splits is not None and rule.length_for(splits) is not None else None
