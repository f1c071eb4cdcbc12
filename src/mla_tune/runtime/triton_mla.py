"""TRITON_MLA: split counts per batch, and a workspace no larger than they need.

``metadata.max_seq_len`` feeds nothing but the split formula (read in 0.20.2, 0.26.0, 0.32.0 and
0.33.0), so a builder that reports S x 512 gets S splits.
"""

__all__ = ["TunedTritonMLABackend"]

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import vllm.v1.attention.backends.mla.triton_mla as vllm_triton_mla

from mla_tune.runtime.builder import TunedBuilder
from mla_tune.runtime.choice import Choice
from mla_tune.runtime.deployment import Deployment, deployment_for
from mla_tune.runtime.engine import captured_batches
from mla_tune.runtime.fidelity import seen_argument, verified
from mla_tune.runtime.log import logger, once
from mla_tune.runtime.replay import Fields
from mla_tune.runtime.splits import (
    default_splits,
    fitting_splits,
    length_for,
    row_splits_needed,
)

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
        Rows x splits that fit, or None when vLLM should reserve as ever: no table, or no
        workspace manager.
    """
    from vllm.v1.worker.workspace import (
        current_workspace_manager,
        is_workspace_manager_initialized,
    )

    if deployment.lookups is None or not is_workspace_manager_initialized():
        return None
    row_splits = _row_splits(deployment, rows, heads, kv_lora_rank)
    import torch

    current_workspace_manager().get_simultaneous(
        ((row_splits, heads, kv_lora_rank + 1), torch.float32)
    )
    gib = heads * (kv_lora_rank + 1) * 4 / 2**30
    own = rows * deployment.default_splits
    once(
        logging.INFO,
        f"mla-tune: TRITON_MLA workspace {row_splits * gib:.2f} GiB, not {own * gib:.2f} GiB: "
        f"{(own - row_splits) * gib:.2f} GiB given back",
    )
    return row_splits


def _row_splits(deployment: Deployment, rows: int, heads: int, kv_lora_rank: int) -> int:
    assert deployment.lookups is not None
    captured = [
        (batch * query_len, choice.num_kv_splits or deployment.default_splits)
        for (batch, query_len), choice in deployment.planned.items()
    ]
    return row_splits_needed(
        captured,
        deployment.lookups.splits_wanted(),
        rows=rows,
        vllm_splits=deployment.default_splits,
        num_heads=heads,
        kv_lora_rank=kv_lora_rank,
        sm_count=deployment.facts.sm_count,
    )


class TunedTritonMLAMetadataBuilder(TunedBuilder, VllmBuilder):  # type: ignore[misc]
    mla_tune_backend = "TRITON_MLA"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._row_splits: int | None = None
        self._answers: dict[tuple[int, int], tuple[int | None, bool]] = {}
        with self._own_reservation():
            super().__init__(*args, **kwargs)
        if self._row_splits is not None:
            self._most_decode_rows = self._row_splits

    # 0.26 to 0.32
    def _reserve_attn_logits_workspace(self) -> None:
        rows = self.vllm_config.scheduler_config.max_num_seqs
        if self._takes_many_tokens():
            rows *= self.reorder_batch_threshold
        if not self._reserve(rows, self.num_heads, self.mla_dims.kv_lora_rank):
            super()._reserve_attn_logits_workspace()

    def _reserve(self, rows: int, heads: int, kv_lora_rank: int) -> bool:
        try:
            self._row_splits = reserve(self._find_deployment(), rows, heads, kv_lora_rank)
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
        rows, wanted = metadata.num_decode_tokens, choice.num_kv_splits
        deployment = self._deployment
        if not rows or deployment is None:
            return ()
        if wanted is not None:
            length, whole = self._answer(wanted, rows)
            if length is not None:
                seen = ("mla_tune", (choice, deployment))
                return (("max_seq_len", length), seen) if whole else (("max_seq_len", length),)
        if self._row_splits is not None:
            own = default_splits(metadata.max_seq_len, deployment.facts.sm_count)
            length, whole = self._answer(own, rows)
            if not whole:
                deployment.counts.capped += 1
                return (("max_seq_len", length),)
        return ()

    def _answer(self, splits: int, rows: int) -> tuple[int | None, bool]:
        """The length to report for ``splits`` of ``rows`` rows, and whether they are all there.

        More splits than reserved raise "Workspace is locked", whoever asked for them. There is
        no length for a count that vLLM's formula never gives.
        """
        answer = self._answers.get((splits, rows))
        if answer is None:
            assert self._deployment is not None
            fitting, sm_count = splits, self._deployment.facts.sm_count
            if self._row_splits is not None:
                fitting = fitting_splits(splits, rows, self._row_splits)
            length = length_for(fitting, sm_count)
            answer = self._answers[splits, rows] = (
                length,
                length is not None and fitting == splits,
            )
        return answer


class TunedTritonMLAImpl(VllmImpl):  # type: ignore[misc]
    def reserve_workspace(self) -> None:
        """0.33 on: while memory is profiled, so that the KV cache gets what is given back."""
        from vllm.v1.attention.backend import max_decode_query_len

        config = self._vllm_config
        decode_query_len = max_decode_query_len(config)
        try:
            captures = functools.partial(captured_batches, config, decode_query_len)
            found = deployment_for("TRITON_MLA", config, self.num_heads, self, captures)
            rows = config.scheduler_config.max_num_seqs * decode_query_len
            done = reserve(found, rows, self.num_heads, self.kv_lora_rank) is not None
        except Exception:
            logger.exception("mla-tune: TRITON_MLA's workspace is reserved as without tables")
            done = False
        if not done:
            super().reserve_workspace()

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
        verified(choice, "num_kv_splits", choice.num_kv_splits, seen, deployment.counts)
        return result


class TunedTritonMLABackend(VllmBackend):  # type: ignore[misc]
    """vLLM's backend under its own name, with our builder and impl."""

    @staticmethod
    def get_impl_cls() -> Any:
        return TunedTritonMLAImpl

    @staticmethod
    def get_builder_cls() -> Any:
        return TunedTritonMLAMetadataBuilder
