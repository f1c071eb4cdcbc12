"""TRITON_MLA: split counts and launches per batch, and a workspace no larger than they need.

How a builder asks vLLM for a split count is said in `mla_tune.vllm.triton_splits`, how a launch
gets other constants in `mla_tune.vllm.triton_launch`.
"""

__all__ = ["TunedTritonMLABackend"]

import functools
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import vllm.v1.attention.backends.mla.triton_mla as vllm_triton_mla

from mla_tune.plan.plan import Plan
from mla_tune.vllm import workspace
from mla_tune.vllm.backends.triton_mla import BACKEND, LAUNCH
from mla_tune.vllm.log import logger
from mla_tune.vllm.plugin.at_load import ReservesAtLoad
from mla_tune.vllm.plugin.builder import TunedBuilder
from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.compiled_ahead import compile_ahead
from mla_tune.vllm.plugin.deployment import Deployment, deployment_for
from mla_tune.vllm.plugin.engine import captured_batches
from mla_tune.vllm.plugin.fidelity import ChecksSplits, checked_by_impl
from mla_tune.vllm.plugin.fields import Fields
from mla_tune.vllm.plugin.launches import FIELD, LaunchFields, launch_knobs
from mla_tune.vllm.plugin.layers import ServedLayers
from mla_tune.vllm.plugin.splits import SplitLengths
from mla_tune.vllm.plugin.state import once
from mla_tune.vllm.plugin.subclass import tuned_backend
from mla_tune.vllm.plugin.triton_workspace import RESERVE, keeps_vllms_splits, reserve, take
from mla_tune.vllm.triton_launch import TunedKernel
from mla_tune.vllm.triton_splits import SplitRule

VllmBackend: Any = vllm_triton_mla.TritonMLABackend
VllmBuilder: Any = VllmBackend.get_builder_cls()
VllmImpl: Any = VllmBackend.get_impl_cls()


class TunedTritonMLAMetadataBuilder(TunedBuilder, VllmBuilder):  # type: ignore[misc]
    mla_tune_backend = BACKEND.name
    mla_tune_knobs = TunedBuilder.mla_tune_knobs | {"num_kv_splits"} | launch_knobs()

    # None: every split count and every launch is vLLM's own.
    _lengths: SplitLengths | None = None
    _launches: LaunchFields

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Rows x splits that we have reserved; None where vLLM has reserved, or nobody.
        self._row_splits: int | None = None
        with self._own_reservation():
            super().__init__(*args, **kwargs)
        policy = self.step_policy
        if policy is None:
            return
        if self._row_splits is not None:
            policy.most_decode_rows = self._row_splits
        elif workspace.manager() is not None:
            # vLLM's own reservation: that many rows fit at any length, and no more.
            most = self.vllm_config.scheduler_config.max_num_seqs
            policy.most_decode_rows = most * self.reorder_batch_threshold
        try:
            self._set_splits(policy.deployment)
        except Exception as error:
            policy.fail(error)

    def _set_splits(self, deployment: Deployment) -> None:
        """Set split counts from here on, where the tables have some that vLLM can take."""
        if deployment.lookups is None:
            return
        if keeps_vllms_splits():
            once(
                logging.WARNING,
                "mla-tune: TRITON_MLA keeps vLLM's split counts, launches and workspace: with "
                "microbatches or DSpark's draft lane there is more than one workspace",
            )
            return
        rule = SplitRule.of_any_count(deployment.facts.sm_count)
        self._lengths = SplitLengths(rule, self._row_splits)
        self._launches = LaunchFields(deployment)
        compile_ahead(self, deployment, self._lengths, self._launches)
        planned = (choice.plan.number("num_kv_splits") for choice in deployment.planned.values())
        wanted = {splits for _, splits in deployment.lookups.splits_wanted()}
        wanted.update(splits for splits in planned if splits is not None)
        for splits in sorted(splits for splits in wanted if rule.length_for(splits) is None):
            once(
                logging.WARNING,
                f"mla-tune: TRITON_MLA: this vLLM cannot be asked for {splits} splits on "
                f"{deployment.facts.sm_count} SMs; entries that ask for them are left out",
            )

    # 0.26 to 0.32
    def _reserve_attn_logits_workspace(self) -> None:
        rows = self.vllm_config.scheduler_config.max_num_seqs
        if self._setup.takes_many_tokens:
            rows *= self.reorder_batch_threshold
        if not self._reserve(rows, self.mla_dims.kv_lora_rank):
            super()._reserve_attn_logits_workspace()

    def _reserve(self, rows: int, kv_lora_rank: int) -> bool:
        try:
            self._row_splits = reserve(self._setup.deployment, rows, kv_lora_rank)
        except Exception as error:
            self._setup.fail(error)
        return self._row_splits is not None

    @contextmanager
    def _own_reservation(self) -> Iterator[None]:
        """Replace 0.33's module function while ``__init__`` runs: it has no other hook."""
        original = getattr(vllm_triton_mla, RESERVE, None)
        if original is None:
            yield
            return

        def reserving(vllm_config: Any, rows: int, heads: int, kv_lora_rank: int) -> None:
            if not self._reserve(rows, kv_lora_rank):
                original(vllm_config, rows, heads, kv_lora_rank)

        setattr(vllm_triton_mla, RESERVE, reserving)
        try:
            yield
        finally:
            setattr(vllm_triton_mla, RESERVE, original)

    def metadata_fields(self, metadata: Any, choice: Choice, built_for: Choice) -> Fields:
        del built_for
        rows, lengths = metadata.num_decode_tokens, self._lengths
        if not rows or lengths is None:
            return ()
        wanted = choice.plan.number("num_kv_splits")
        if wanted is not None:
            length, whole = lengths.asking_for(wanted, rows)
            if length is not None:
                return (("max_seq_len", length), *(self._as_planned(choice) if whole else ()))
        if self._row_splits is not None:
            length, whole = lengths.asking_for(lengths.rule.splits(metadata.max_seq_len), rows)
            if not whole and length is not None:
                self._counts.capped += 1
                return (("max_seq_len", length),)
        return self._as_planned(choice) if wanted is None else ()

    def _as_planned(self, choice: Choice) -> Fields:
        """Of a step that has the whole plan: its launch, and what the impl compares with."""
        launch = self._launches.of(choice.plan)
        if not launch and "num_kv_splits" not in choice.plan:
            return ()
        return (*launch, *checked_by_impl(choice, self._counts))


class TunedTritonMLAImpl(ReservesAtLoad, ChecksSplits, VllmImpl):  # type: ignore[misc]
    mla_tune_backend = BACKEND.name

    def reserve_workspace(self) -> None:
        """0.33 on: while memory is profiled, so that the KV cache gets what is given back.

        On model runner V1 idle data-parallel ranks call it again, at each layer of every step that
        replays no full graph, and the busy ranks wait for them.
        """
        row_splits, manager = self._row_splits, workspace.manager()
        if row_splits is None or manager is None:
            super().reserve_workspace()
        else:
            # vLLM's base class of impls counts the ranks that share a request's cache.
            heads = self.num_heads * getattr(self, "dcp_world_size", 1)
            take(manager, row_splits, heads, self.kv_lora_rank)

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
            found = deployment_for(BACKEND.name, knobs, config, layers, captures)
            rows = config.scheduler_config.max_num_seqs * decode_query_len
            return reserve(found, rows, self.kv_lora_rank)
        except Exception:
            logger.exception("mla-tune: TRITON_MLA's workspace is reserved as without tables")
            return None

    def forward_mqa(self, q: Any, kv_c_and_k_pe_cache: Any, attn_metadata: Any, *args: Any) -> Any:
        forward = functools.partial(
            super().forward_mqa, q, kv_c_and_k_pe_cache, attn_metadata, *args
        )
        step_launch = getattr(attn_metadata, FIELD, None)
        return forward() if step_launch is None else step_launch.run(forward)

    def split_argument(self) -> tuple[Any, str, str]:
        return vllm_triton_mla, *LAUNCH

    def launches_observed(self) -> AbstractContextManager[list[Plan]]:
        kernel = TunedKernel.of_vllm()
        return nullcontext([]) if kernel is None else kernel.observed()


TunedTritonMLABackend = tuned_backend(
    VllmBackend, TunedTritonMLAMetadataBuilder, TunedTritonMLAImpl
)
