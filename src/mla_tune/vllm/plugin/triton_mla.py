"""TRITON_MLA: split counts per batch, and a workspace no larger than they need.

How a builder asks vLLM for a split count is said in `mla_tune.vllm.triton_splits`.
"""

__all__ = ["TunedTritonMLABackend"]

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import vllm.v1.attention.backends.mla.triton_mla as vllm_triton_mla

from mla_tune.vllm import workspace
from mla_tune.vllm.log import logger
from mla_tune.vllm.plugin.at_load import ReservesAtLoad
from mla_tune.vllm.plugin.builder import TunedBuilder
from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.deployment import Deployment, deployment_for
from mla_tune.vllm.plugin.engine import captured_batches
from mla_tune.vllm.plugin.fidelity import seen_argument, verified
from mla_tune.vllm.plugin.layers import ServedLayers
from mla_tune.vllm.plugin.replay import Fields
from mla_tune.vllm.plugin.splits import row_splits_needed
from mla_tune.vllm.plugin.state import once
from mla_tune.vllm.triton_splits import SplitRule

VllmBackend: Any = vllm_triton_mla.TritonMLABackend
VllmBuilder: Any = VllmBackend.get_builder_cls()
VllmImpl: Any = VllmBackend.get_impl_cls()

# 0.33 reserves in a function of the module that the builder's __init__ calls, 0.26 to 0.32 in a
# method, 0.20 not at all.
RESERVE = "_reserve_attn_logits_workspace"


def reserve(deployment: Deployment, rows: int, heads: int, kv_lora_rank: int) -> int | None:
    """Reserve vLLM's shared workspace for the splits the table can ask for.

    Args:
        rows: the most rows of queries of any decode step.
        heads: query heads the kernel sees.
        kv_lora_rank: width of a partial result, less its log-sum-exp.

    Returns:
        Rows x splits that fit, or None when vLLM should reserve as ever: no table, no workspace
        manager, or several slots.
    """
    manager = workspace.manager()
    if deployment.lookups is None or manager is None or keeps_vllms_splits():
        return None
    rule = SplitRule.of_vllm(deployment.facts.sm_count)
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
    gib = heads * (kv_lora_rank + 1) * 4 / 2**30
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
    reserves = hasattr(vllm_triton_mla, RESERVE) or hasattr(VllmBuilder, RESERVE)
    return reserves and workspace.slots() > 1


def _askable(splits: int | None, rule: SplitRule) -> int | None:
    return splits if splits is not None and rule.length_for(splits) is not None else None


class TunedTritonMLAMetadataBuilder(TunedBuilder, VllmBuilder):  # type: ignore[misc]
    mla_tune_backend = "TRITON_MLA"
    mla_tune_knobs = TunedBuilder.mla_tune_knobs | {"num_kv_splits"}

    _rule: SplitRule | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._row_splits: int | None = None
        self._answers: dict[tuple[int, int], tuple[int | None, bool]] = {}
        with self._own_reservation():
            super().__init__(*args, **kwargs)
        if self._row_splits is not None:
            self._most_decode_rows = self._row_splits
        elif workspace.manager() is not None:
            # vLLM's own reservation: that many rows fit at any length, and no more.
            most = self.vllm_config.scheduler_config.max_num_seqs
            self._most_decode_rows = most * self.reorder_batch_threshold

    def _start(self) -> None:
        super()._start()
        deployment, self._rule = self._find_deployment(), None
        if deployment.lookups is None:
            return
        if keeps_vllms_splits():
            once(
                logging.WARNING,
                "mla-tune: TRITON_MLA keeps vLLM's split counts and workspace: with microbatches "
                "or DSpark's draft lane there is more than one workspace",
            )
            return
        self._rule = SplitRule.of_vllm(deployment.facts.sm_count)
        planned = (choice.plan.number("num_kv_splits") for choice in deployment.planned.values())
        wanted = {splits for _, splits in deployment.lookups.splits_wanted()}
        wanted.update(splits for splits in planned if splits is not None)
        for splits in sorted(wanted - set(self._rule.counts)):
            once(
                logging.WARNING,
                f"mla-tune: TRITON_MLA: this vLLM never takes {splits} splits on "
                f"{deployment.facts.sm_count} SMs; entries that ask for them are left out",
            )

    # 0.26 to 0.32
    def _reserve_attn_logits_workspace(self) -> None:
        rows = self.vllm_config.scheduler_config.max_num_seqs
        if self._takes_many_tokens():
            rows *= self.reorder_batch_threshold
        if not self._reserve(rows, self.num_heads, self.mla_dims.kv_lora_rank):
            super()._reserve_attn_logits_workspace()

    def _reserve(self, rows: int, heads: int, kv_lora_rank: int) -> bool:
        try:
            deployment = self._find_deployment()
            self._rule = SplitRule.of_vllm(deployment.facts.sm_count)
            self._row_splits = reserve(deployment, rows, heads, kv_lora_rank)
        except Exception as error:
            self._failed(error)
        return self._row_splits is not None

    @contextmanager
    def _own_reservation(self) -> Iterator[None]:
        """Stand in for 0.33's module function while ``__init__`` runs: it has no other hook."""
        original = getattr(vllm_triton_mla, RESERVE, None)
        if original is None:
            yield
            return

        def reserving(vllm_config: Any, rows: int, heads: int, kv_lora_rank: int) -> None:
            if not self._reserve(rows, heads, kv_lora_rank):
                original(vllm_config, rows, heads, kv_lora_rank)

        setattr(vllm_triton_mla, RESERVE, reserving)
        try:
            yield
        finally:
            setattr(vllm_triton_mla, RESERVE, original)

    def _after(self, metadata: Any, choice: Choice) -> Fields:
        rows, wanted = metadata.num_decode_tokens, choice.plan.number("num_kv_splits")
        deployment, rule = self._deployment, self._rule
        if not rows or deployment is None or rule is None:
            return ()
        if wanted is not None:
            length, whole = self._answer(wanted, rows, rule)
            if length is not None:
                seen = ("mla_tune", (choice, deployment))
                return (("max_seq_len", length), seen) if whole else (("max_seq_len", length),)
        if self._row_splits is not None:
            length, whole = self._answer(rule.splits(metadata.max_seq_len), rows, rule)
            if not whole and length is not None:
                deployment.counts.capped += 1
                return (("max_seq_len", length),)
        return ()

    def _answer(self, splits: int, rows: int, rule: SplitRule) -> tuple[int | None, bool]:
        """The length to report for ``splits`` of ``rows`` rows, and whether they are all there.

        More splits than reserved raise "Workspace is locked", whoever asked for them. There is
        no length for a count that vLLM never takes.
        """
        answer = self._answers.get((splits, rows))
        if answer is None:
            room = splits if self._row_splits is None else max(1, self._row_splits // rows)
            whole = splits <= room
            length = rule.length_for(splits if whole else rule.most_within(room))
            answer = self._answers[splits, rows] = (length, whole and length is not None)
        return answer


class TunedTritonMLAImpl(ReservesAtLoad, VllmImpl):  # type: ignore[misc]
    mla_tune_backend = "TRITON_MLA"

    def reserve_workspace(self) -> None:
        """0.33 on: while memory is profiled, so that the KV cache gets what is given back.

        On model runner V1 idle data-parallel ranks call it again, at each layer of every step that
        replays no full graph, and the busy ranks wait for them.
        """
        row_splits, manager = self._row_splits, workspace.manager()
        if row_splits is None or manager is None:
            super().reserve_workspace()
        else:
            take(manager, row_splits, self.num_heads, self.kv_lora_rank)

    @functools.cached_property
    def _row_splits(self) -> int | None:
        """What `reserve` says for this engine. Finding the deployment takes milliseconds."""
        from vllm.v1.attention.backend import max_decode_query_len

        config = self._vllm_config
        decode_query_len = max_decode_query_len(config)
        try:
            captures = functools.partial(captured_batches, config, decode_query_len)
            block_size = config.cache_config.block_size
            layers = functools.partial(ServedLayers.of_impl, self, block_size=block_size)
            knobs = TunedTritonMLAMetadataBuilder.mla_tune_knobs
            found = deployment_for("TRITON_MLA", knobs, config, layers, captures)
            rows = config.scheduler_config.max_num_seqs * decode_query_len
            return reserve(found, rows, self.num_heads, self.kv_lora_rank)
        except Exception:
            logger.exception("mla-tune: TRITON_MLA's workspace is reserved as without tables")
            return None

    def forward_mqa(
        self, q: Any, kv_c_and_k_pe_cache: Any, attn_metadata: Any, layer: Any, *args: Any
    ) -> Any:
        def run() -> Any:
            return super(TunedTritonMLAImpl, self).forward_mqa(
                q, kv_c_and_k_pe_cache, attn_metadata, layer, *args
            )

        found = getattr(attn_metadata, "mla_tune", None)
        if found is None or found[0].checked:
            return run()
        choice, deployment = found
        result, seen = seen_argument(vllm_triton_mla, "decode_attention_fwd", "num_kv_splits", run)
        verified(choice, "num_kv_splits", choice.plan["num_kv_splits"], seen, deployment.counts)
        return result


class TunedTritonMLABackend(VllmBackend):  # type: ignore[misc]
    """vLLM's backend under its own name, with our builder and impl."""

    @staticmethod
    def get_impl_cls() -> Any:
        return TunedTritonMLAImpl

    @staticmethod
    def get_builder_cls() -> Any:
        return TunedTritonMLAMetadataBuilder
