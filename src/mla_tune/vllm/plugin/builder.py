"""What a table changes in vLLM's MLA metadata builders."""

__all__ = ["TunedBuilder"]

import copy
import functools
import logging
from typing import Any, ClassVar

from mla_tune.vllm.log import logger
from mla_tune.vllm.plugin.choice import VLLM_OWN, Choice
from mla_tune.vllm.plugin.deployment import Deployment, deployment_for
from mla_tune.vllm.plugin.engine import captured_batches
from mla_tune.vllm.plugin.fidelity import verified
from mla_tune.vllm.plugin.layers import ServedLayers
from mla_tune.vllm.plugin.prefill import PrefillByBatch
from mla_tune.vllm.plugin.replay import STEPS_BETWEEN_LOOKS, Fields, Replay
from mla_tune.vllm.plugin.single import best_prefill_backend, named_prefill_backends
from mla_tune.vllm.plugin.state import once
from mla_tune.vllm.plugin.step_choices import StepChoices
from mla_tune.vllm.plugin.thresholds import Thresholds


class TunedBuilder:
    """Stands before one of vLLM's builders in a class's bases.

    A step's choice comes from CPU data only. Whatever fails in here is logged once, and the
    step runs as vLLM would run it.
    """

    mla_tune_backend: ClassVar[str]
    mla_tune_knobs: ClassVar[frozenset[str]] = frozenset(
        {"reorder_batch_threshold", "prefill_backend"}
    )
    """The knobs that this class sets. A plan with any other is not applied."""

    # What vLLM's builder brings.
    vllm_config: Any
    kv_cache_spec: Any
    layer_names: list[str]
    num_heads: int
    mla_dims: Any
    query_len_support: Any
    reorder_batch_threshold: int
    get_cudagraph_support: Any
    _init_reorder_batch_threshold: Any

    _deployment: Deployment | None = None
    _choices: StepChoices | None = None
    _prefills: PrefillByBatch | None = None
    _capturing = False
    # While a batch size is captured that has been before: what it was captured with.
    _captured_with: Replay | None = None
    _lookups_failed = False

    def __init__(
        self, kv_cache_spec: Any, layer_names: list[str], *args: Any, **kwargs: Any
    ) -> None:
        self._replays: dict[tuple[int, int], Replay] = {}
        self._most_decode_rows: int | None = None
        # The base of all builders keeps them, but MLA's do not call it.
        self.layer_names = layer_names
        super().__init__(kv_cache_spec, layer_names, *args, **kwargs)  # type: ignore[call-arg]
        self._thresholds = Thresholds(self.reorder_batch_threshold)
        self._single_prefill: str | None = None
        try:
            self._start()
        except Exception as error:
            self._failed(error)

    # Setting up

    def _find_deployment(self) -> Deployment:
        """The deployment, also while vLLM's own ``__init__`` is still running."""
        if self._deployment is None:
            self._deployment = deployment_for(
                self.mla_tune_backend,
                self.mla_tune_knobs,
                self.vllm_config,
                functools.partial(ServedLayers.of_builder, self),
                self._captures,
            )
            self._choices = StepChoices(self._deployment)
        return self._deployment

    def _captures(self) -> tuple[tuple[int, int], ...]:
        support = self.get_cudagraph_support(self.vllm_config, self.kv_cache_spec)
        if support == type(support).NEVER:
            return ()
        return captured_batches(self.vllm_config, self._decode_query_len())

    def _decode_query_len(self) -> int:
        """1 + the draft tokens that vLLM lets take the decode path; 1 without speculation."""
        # vLLM's own rule, which differs between releases; it only sets this attribute of a copy.
        asked = copy.copy(self)
        asked._init_reorder_batch_threshold(1, self._takes_many_tokens(), False)
        return asked.reorder_batch_threshold

    def _takes_many_tokens(self) -> bool:
        """Whether the decode path takes requests of several tokens at all."""
        return bool(self.query_len_support != type(self.query_len_support).SINGLE_ONLY)

    def _start(self) -> None:
        deployment = self._find_deployment()
        lookups = deployment.lookups
        if lookups is None or lookups.eager_table is None:
            return
        entries = lookups.eager_table.entries
        self._single_prefill = best_prefill_backend(entries)
        if names := named_prefill_backends(entries):
            self._prefills = PrefillByBatch(self, names)
        parallel = self.vllm_config.parallel_config
        # Microbatching decides by the runner's threshold which requests may read what others in
        # the step write (0.32 on), so the two must not differ.
        if not self._takes_many_tokens() or (
            getattr(parallel, "enable_dbo", False) or getattr(parallel, "use_ubatching", False)
        ):
            return
        own = self._thresholds.vllm_own
        self._thresholds = Thresholds(own, self._decode_query_len(), entries)
        # Where vLLM's class says 1, its buffers and graphs are sized for that: such a builder
        # gets a threshold only for a single step of uniform requests.
        if type(self).reorder_batch_threshold > 1:
            varlen = self.query_len_support == type(self.query_len_support).VARLEN
            mixed = self._thresholds.tune_mixed(entries, uniform_only=not varlen)
            if mixed != own:
                told = f"threshold {mixed} instead of {own} for mixed batches"
                logger.info("mla-tune: %s: %s", self.mla_tune_backend, told)

    def _failed(self, error: Exception) -> None:
        self._lookups_failed = True
        if self._prefills is not None:
            self._prefills.choose(None)
            self._prefills = None
        if self._deployment is not None:
            self._deployment.counts.fallbacks += 1
        once(
            logging.ERROR,
            f"mla-tune: {self.mla_tune_backend} goes on untuned after "
            f"{type(error).__name__}: {error}",
            exc_info=error,
        )

    # Every step

    def build_for_cudagraph_capture(self, common_attn_metadata: Any) -> Any:
        """Build for a capture, or for a step that replays one without requests.

        An idle data-parallel rank (0.32 on) builds each of its steps in here, to leave nothing of
        the batch before in the buffers that the graph reads. The graph has frozen a choice by
        then: it is asked for once.
        """
        batch, key = common_attn_metadata, _key(common_attn_metadata)
        self._capturing, self._captured_with = True, self._replays.pop(key, None)
        try:
            return super().build_for_cudagraph_capture(batch)  # type: ignore[misc]
        finally:
            if self._captured_with is not None:
                self._replays.setdefault(key, self._captured_with)
            self._capturing, self._captured_with = False, None

    def build(
        self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False
    ) -> Any:
        batch = common_attn_metadata
        replay = self._replays.get((batch.num_reqs, batch.max_query_len))
        if replay is None:
            return self._build_chosen(common_prefix_len, batch, fast_build)
        # A decode step waits for this on the host, where each call and each attribute comes out
        # of a cold cache: what the capture has settled is not asked again.
        for name, value in replay.before:
            setattr(self, name, value)
        metadata = super().build(common_prefix_len, batch, fast_build)  # type: ignore[misc]
        for name, value in replay.after:
            setattr(metadata, name, value)
        tally = replay.tally
        tally.steps += 1
        if tally.steps % replay.look_every == 0 or batch.max_seq_len > replay.longest_kv:
            self._look(replay, batch, metadata)
        return metadata

    def _build_chosen(self, common_prefix_len: int, batch: Any, fast_build: bool) -> Any:
        """Build a step that is no replay, with what the tables say about it."""
        if self._choices is None:
            return super().build(common_prefix_len, batch, fast_build)  # type: ignore[misc]
        try:
            choice = self._chosen(batch)
            threshold = self.reorder_batch_threshold
            metadata = super().build(common_prefix_len, batch, fast_build)  # type: ignore[misc]
        finally:
            self._put_back()
        try:
            if choice is not VLLM_OWN:
                self._check_path(metadata, choice, threshold)
            elif metadata.num_decodes and not self._lookups_failed:
                choice = self._choices.decodes(batch, metadata)
            after = self._after(metadata, choice)
            for name, value in after:
                setattr(metadata, name, value)
            if self._capturing:
                self._keep(batch, choice, after)
            else:
                self._count(batch, metadata, choice)
        except Exception as error:
            self._failed(error)
        return metadata

    def _chosen(self, batch: Any) -> Choice:
        """Choose for ``batch``, and set what the choice needs while vLLM builds."""
        try:
            choice = self._choose(batch)
            self._before(choice)
            of_its_own = choice is VLLM_OWN or "reorder_batch_threshold" in choice.plan
            if of_its_own and not (self._capturing or self._lookups_failed):
                self.reorder_batch_threshold = self._threshold(batch, choice)
            return choice
        except Exception as error:
            self._failed(error)
            # Half of a choice may be set, or what the step before had.
            self._put_back()
            self._before(VLLM_OWN)
            return VLLM_OWN

    def _put_back(self) -> None:
        """Undo what was set for one build: between two, anybody may read the builder."""
        self.reorder_batch_threshold = self._thresholds.vllm_own
        if self._prefills is not None:
            self._prefills.choose(None)

    def _choose(self, batch: Any) -> Choice:
        assert self._choices is not None
        if self._captured_with is not None:
            return self._captured_with.choice
        if self._capturing:
            return self._choices.captured(batch)
        return VLLM_OWN if self._lookups_failed else self._choices.eager(batch)

    def _threshold(self, batch: Any, choice: Choice) -> int:
        if choice is VLLM_OWN:
            return self._thresholds.of_mixed(batch)
        # Blocks of queries that see each other (0.33's drafts) were not measured.
        unlike = getattr(batch, "causal", True) is False
        most = self._most_decode_rows
        if unlike or (most is not None and batch.num_actual_tokens > most):
            return self._thresholds.vllm_own
        return self._thresholds.of_uniform(batch, choice.plan.number("reorder_batch_threshold"))

    def _look(self, replay: Replay, batch: Any, metadata: Any) -> None:
        """What only some replays need: the record, a warning, reports."""
        deployment, choice = self._deployment, replay.choice
        assert deployment is not None
        try:
            if batch.max_seq_len > replay.longest_kv:
                deployment.counts.beyond += 1
                once(
                    logging.WARNING,
                    f"mla-tune: {self.mla_tune_backend} serves KV lengths beyond the "
                    f"{choice.longest_kv} that the graph of {choice.shape} was tuned for; add "
                    "them to the shapes file",
                )
            if deployment.recorder is not None:
                deployment.recorder.add_step("graph", choice.outcome, batch, metadata)
            if replay.tally.steps % STEPS_BETWEEN_LOOKS == 0:
                deployment.counts.report()
        except Exception as error:
            self._failed(error)

    def _before(self, choice: Choice) -> None:
        """Set what has to be in place while vLLM builds."""
        if self._prefills is not None:
            named = choice.plan.text("prefill_backend")
            self._prefills.choose(self._single_prefill if choice is VLLM_OWN else named)

    def _before_replay(self, choice: Choice) -> Fields:
        """What `_before` comes to in the steps that replay a graph: those have no prefill."""
        del choice
        return ()

    def _after(self, metadata: Any, choice: Choice) -> Fields:
        """What to change in the metadata that vLLM has built."""
        del metadata, choice
        return ()

    def _count(self, batch: Any, metadata: Any, choice: Choice) -> None:
        deployment = self._deployment
        assert deployment is not None
        deployment.counts.step(choice.outcome)
        if deployment.recorder is not None:
            deployment.recorder.add_step("eager", choice.outcome, batch, metadata)

    def _keep(self, batch: Any, choice: Choice, after: Fields) -> None:
        """Note what the graph that is being captured is built with."""
        deployment = self._deployment
        assert deployment is not None
        look_every = STEPS_BETWEEN_LOOKS if deployment.recorder is None else 1
        tally = deployment.counts.tally(choice.outcome)
        replay = Replay.of(choice, self._before_replay(choice), after, look_every, tally)
        self._replays[_key(batch)] = replay

    def _check_path(self, metadata: Any, choice: Choice, threshold: int) -> None:
        """Compare the path that a uniform batch has taken with the one its threshold means."""
        # A split count, where there is one as well, is compared where the kernel is launched.
        if choice.checked or "num_kv_splits" in choice.plan:
            return
        if "reorder_batch_threshold" not in choice.plan:
            return
        if threshold == self._thresholds.vllm_own or self._deployment is None:
            return
        wanted = "decode" if metadata.max_query_len <= threshold else "prefill"
        seen = "decode" if metadata.num_prefills == 0 else "prefill"
        verified(choice, "path", wanted, seen, self._deployment.counts)


def _key(batch: Any) -> tuple[int, int]:
    """What a decode graph is captured for: requests and query length."""
    return batch.num_reqs, batch.max_query_len
