"""What the tables of an engine mean for one of vLLM's builders, found out while it is made."""

__all__ = ["BuilderSetup"]

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

from mla_tune.table import Entry
from mla_tune.vllm.compat.layers import decodes_uniform, query_len_support
from mla_tune.vllm.compat.parallel import microbatched
from mla_tune.vllm.log import logger
from mla_tune.vllm.plugin.deployment import Deployment, deployment_for, say_untuned
from mla_tune.vllm.plugin.engine import captured_batches
from mla_tune.vllm.plugin.layers import ServedLayers
from mla_tune.vllm.plugin.prefill import PrefillByBatch
from mla_tune.vllm.plugin.single import best_prefill_backend, named_prefill_backends
from mla_tune.vllm.plugin.step_policy import StepPolicy
from mla_tune.vllm.plugin.thresholds import Thresholds


class BuilderSetup:
    """The deployment of a builder, and the policy for its steps.

    Args:
        builder: a `TunedBuilder`. The deployment may be asked for while vLLM's ``__init__`` of it
            still runs, the policy only afterwards.
        find: finds the deployment, as `deployment_for` does.
    """

    def __init__(self, builder: Any, find: Callable[..., Deployment] = deployment_for) -> None:
        self._builder = builder
        self._find = find
        self._failed = False

    @functools.cached_property
    def deployment(self) -> Deployment:
        """The deployment of the builder's backend. Raises whatever keeps it from being found."""
        builder = self._builder
        return self._find(
            builder.mla_tune_backend,
            builder.mla_tune_knobs,
            builder.vllm_config,
            functools.partial(ServedLayers.of_builder, builder),
            self.captures,
        )

    def captures(self) -> tuple[tuple[int, int], ...]:
        """(requests, query length) of the decode graphs that the builder will build for."""
        builder = self._builder
        support = builder.get_cudagraph_support(builder.vllm_config, builder.kv_cache_spec)
        if support == type(support).NEVER:
            return ()
        return captured_batches(builder.vllm_config, self.decode_query_len())

    def decode_query_len(self) -> int:
        """1 + the draft tokens that vLLM lets take the decode path; 1 without speculation."""
        # vLLM's own rule, which differs between releases; it only sets this attribute of a copy.
        asked = copy.copy(self._builder)
        asked._init_reorder_batch_threshold(1, self.takes_many_tokens, False)
        return int(asked.reorder_batch_threshold)

    @property
    def takes_many_tokens(self) -> bool:
        """Whether the decode path takes requests of several tokens at all."""
        return query_len_support(self._builder) != "single_only"

    def fail(self, error: Exception) -> None:
        """Log ``error``; the policy will leave the steps outside of graphs to vLLM."""
        self._failed = True
        if "deployment" in vars(self):
            self.deployment.goes_on_untuned(error)
        else:
            say_untuned(self._builder.mla_tune_backend, error)

    def policy(self) -> StepPolicy | None:
        """The policy for the builder's steps; None if they are vLLM's own, graphs too."""
        builder = self._builder
        try:
            builder.note_vllms_own()
            policy = StepPolicy(self.deployment, builder.reorder_batch_threshold)
        except Exception as error:
            self.fail(error)
            return None
        policy.failed = self._failed
        lookups = self.deployment.lookups
        try:
            if lookups is not None and lookups.eager_table is not None:
                self._use(lookups.eager_table.entries, policy)
        except Exception as error:
            policy.fail(error)
        return policy

    def _use(self, entries: Sequence[Entry], policy: StepPolicy) -> None:
        """Have ``policy`` take prefill backends and thresholds from the eager ``entries``."""
        policy.mixed_prefill = best_prefill_backend(entries)
        if names := named_prefill_backends(entries):
            policy.prefills = PrefillByBatch(self._builder, names)
        parallel = self._builder.vllm_config.parallel_config
        # Microbatching decides by the runner's threshold which requests may read what others in
        # the step write (0.32 on), so the two must not differ.
        if not self.takes_many_tokens or microbatched(parallel):
            return
        policy.thresholds = self._thresholds(entries, policy.thresholds.vllm_own)

    def _thresholds(self, entries: Sequence[Entry], vllm_own: int) -> Thresholds:
        builder = self._builder
        topk = self.deployment.facts.index_topk
        thresholds = Thresholds(vllm_own, self.decode_query_len(), entries, topk=topk)
        raised = [entry.shape for entry in entries if _asks_for_more_than(vllm_own, entry)]
        if topk is not None and raised:
            logger.info(
                "mla-tune: %s: %s stay vLLM's: a threshold above its own %d would have the "
                "indexer pick tokens for requests that attend to all, which was not measured",
                builder.mla_tune_backend, ", ".join(raised), vllm_own,
            )  # fmt: skip
        # Where vLLM's class says 1, its buffers and graphs are sized for that: such a builder
        # gets a threshold only for a single step of uniform requests. A sparse one's class says
        # none, since its threshold goes by the heads.
        if type(builder).reorder_batch_threshold != 1:
            mixed = thresholds.tune_mixed(entries, uniform_only=decodes_uniform(builder))
            if mixed != vllm_own:
                told = f"threshold {mixed} instead of {vllm_own} for mixed batches"
                logger.info("mla-tune: %s: %s", builder.mla_tune_backend, told)
        return thresholds


def _asks_for_more_than(threshold: int, entry: Entry) -> bool:
    wanted = entry.plan.number("reorder_batch_threshold")
    return wanted is not None and wanted > threshold
