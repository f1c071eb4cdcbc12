"""The mixin that has vLLM's MLA metadata builders build by the tables."""

__all__ = ["TunedBuilder"]

from dataclasses import dataclass
from typing import Any, ClassVar

from mla_tune.vllm.plugin.builder_setup import BuilderSetup
from mla_tune.vllm.plugin.choice import VLLM_OWN, Choice
from mla_tune.vllm.plugin.counts import Counts
from mla_tune.vllm.plugin.fields import Fields, exchange
from mla_tune.vllm.plugin.replay import Replay
from mla_tune.vllm.plugin.step_policy import StepPolicy


@dataclass(slots=True)
class Capture:
    """A build for a graph, with what the graph of its size was captured with before."""

    before: Replay | None


class TunedBuilder:
    """Mixin for a metadata builder of vLLM; it comes first among the bases of a subclass.

    A subclass says in four hooks what its backend needs beyond a threshold and a prefill
    backend. Whatever fails in our code is logged once, and the step runs as vLLM would run it.
    """

    mla_tune_backend: ClassVar[str]
    mla_tune_knobs: ClassVar[frozenset[str]] = frozenset(
        {"reorder_batch_threshold", "prefill_backend"}
    )
    """The knobs that this class sets. A plan with any other is not applied."""

    # What vLLM's builder brings.
    vllm_config: Any
    num_heads: int
    mla_dims: Any
    layer_names: list[str]
    reorder_batch_threshold: int

    step_policy: StepPolicy | None = None
    _capture: Capture | None = None

    def __init__(
        self, kv_cache_spec: Any, layer_names: list[str], *args: Any, **kwargs: Any
    ) -> None:
        self._replays: dict[tuple[int, int], Replay] = {}
        # The base of all builders keeps them, but MLA's do not call it.
        self.layer_names = layer_names
        self._setup = BuilderSetup(self)
        super().__init__(kv_cache_spec, layer_names, *args, **kwargs)  # type: ignore[call-arg]
        self.step_policy = self._setup.policy()

    # What a backend needs beyond the threshold and the prefill backend.

    def note_vllms_own(self) -> None:
        """Note the values of vLLM's that other hooks need. If it raises, all steps are vLLM's."""

    def fields_while_building(self, choice: Choice) -> Fields:
        """What to set on this builder while vLLM builds a step that replays no graph."""
        del choice
        return ()

    def fields_while_replaying(self, choice: Choice) -> Fields:
        """What to set on this builder before vLLM builds a step that replays a graph."""
        del choice
        return ()

    def metadata_fields(self, metadata: Any, choice: Choice, built_for: Choice) -> Fields:
        """What to set on the metadata that vLLM has built.

        Args:
            metadata: with as many decodes and prefills as the step has.
            choice: for the decodes of ``metadata``.
            built_for: what `fields_while_building` was asked for. It is `VLLM_OWN` for a mixed
                batch, whose decodes are only known, and looked up, once it has been built.
        """
        del metadata, choice, built_for
        return ()

    @property
    def _counts(self) -> Counts:
        assert self.step_policy is not None
        return self.step_policy.deployment.counts

    # What vLLM calls.

    def build_for_cudagraph_capture(self, common_attn_metadata: Any) -> Any:
        """Build for a capture, or for a step that replays one without requests.

        An idle data-parallel rank (0.32 on) builds each of its steps in here, to leave nothing of
        the batch before in the buffers that the graph reads. The graph has frozen a choice by
        then: it is asked for once.
        """
        batch, key = common_attn_metadata, _key(common_attn_metadata)
        capture = self._capture = Capture(self._replays.pop(key, None))
        try:
            return super().build_for_cudagraph_capture(batch)  # type: ignore[misc]
        finally:
            self._capture = None
            if capture.before is not None:
                self._replays.setdefault(key, capture.before)

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
            assert self.step_policy is not None
            self.step_policy.look(replay, batch, metadata)
        return metadata

    def _build_chosen(self, common_prefix_len: int, batch: Any, fast_build: bool) -> Any:
        """Build a step that replays no graph, with what the tables say about it."""
        policy = self.step_policy
        if policy is None:
            return super().build(common_prefix_len, batch, fast_build)  # type: ignore[misc]
        choice, fields = self._chosen(policy, batch)
        # Between two builds anybody may read the builder, so everything is put back.
        before = exchange(self, fields)
        try:
            metadata = super().build(common_prefix_len, batch, fast_build)  # type: ignore[misc]
        finally:
            exchange(self, before)
        try:
            self._settle(policy, batch, metadata, choice, fields)
        except Exception as error:
            policy.fail(error)
        return metadata

    def _chosen(self, policy: StepPolicy, batch: Any) -> tuple[Choice, Fields]:
        """The choice for ``batch``, and what to set on this builder while vLLM builds it."""
        capture = self._capture
        try:
            if capture is None:
                choice = policy.eager(batch)
                fields = policy.builder_fields(batch, choice)
            else:
                known = capture.before
                choice = policy.choices.captured(batch) if known is None else known.choice
                fields = policy.prefill_fields(choice)
            return choice, fields + self.fields_while_building(choice)
        except Exception as error:
            policy.fail(error)
            return VLLM_OWN, self.fields_while_building(VLLM_OWN)

    def _settle(
        self, policy: StepPolicy, batch: Any, metadata: Any, built_for: Choice, fields: Fields
    ) -> None:
        """Change the metadata that vLLM has built, and count the step or note the replay."""
        choice = policy.settled(batch, metadata, built_for, fields)
        after = self.metadata_fields(metadata, choice, built_for)
        for name, value in after:
            setattr(metadata, name, value)
        if self._capture is None:
            policy.count(batch, metadata, choice)
        else:
            before = self.fields_while_replaying(choice)
            self._replays[_key(batch)] = policy.replay(choice, before, after)


def _key(batch: Any) -> tuple[int, int]:
    """What a decode graph is captured for: requests and query length."""
    return batch.num_reqs, batch.max_query_len
