"""What is done for each step of one builder that replays no graph."""

__all__ = ["StepPolicy"]

import logging
from typing import Any

from mla_tune.vllm.plugin.choice import VLLM_OWN, Choice
from mla_tune.vllm.plugin.deployment import Deployment
from mla_tune.vllm.plugin.fidelity import at_the_launch, verified
from mla_tune.vllm.plugin.fields import Fields
from mla_tune.vllm.plugin.prefill import PrefillByBatch
from mla_tune.vllm.plugin.replay import STEPS_BETWEEN_LOOKS, Replay
from mla_tune.vllm.plugin.state import once
from mla_tune.vllm.plugin.step_choices import StepChoices
from mla_tune.vllm.plugin.thresholds import Thresholds


class StepPolicy:
    """Chooses for one step after another, from CPU data only, and counts what was chosen.

    ``batch`` is vLLM's CommonAttentionMetadata, ``metadata`` what its builder made of it.

    Attributes:
        deployment: shared with the other builders of the backend.
        choices: what the tables say.
        thresholds: up to which query length requests take the decode path.
        prefills: the prefill backends to choose from; None where tables name none.
        mixed_prefill: the short name of the prefill backend for batches of several kinds of
            requests; None for vLLM's own.
        most_decode_rows: the most query tokens that the decode kernel has room for; None for any
            number.
        failed: whether our code has failed. Steps outside of graphs are vLLM's own from then on.
    """

    def __init__(self, deployment: Deployment, vllm_threshold: int) -> None:
        self.deployment = deployment
        self.choices = StepChoices(deployment)
        self.thresholds = Thresholds(vllm_threshold)
        self.prefills: PrefillByBatch | None = None
        self.mixed_prefill: str | None = None
        self.most_decode_rows: int | None = None
        self.failed = False

    def fail(self, error: Exception) -> None:
        """Log ``error``, and leave the steps to come to vLLM."""
        self.failed, self.prefills = True, None
        self.deployment.goes_on_untuned(error)

    def eager(self, batch: Any) -> Choice:
        """The choice for a step outside of graphs; `VLLM_OWN` for a mixed batch."""
        return VLLM_OWN if self.failed else self.choices.eager(batch)

    def builder_fields(self, batch: Any, choice: Choice) -> Fields:
        """What to set on the builder while it builds a step outside of graphs."""
        prefill = self.prefill_fields(choice)
        if self.failed or not (choice is VLLM_OWN or "reorder_batch_threshold" in choice.plan):
            return prefill
        return (*prefill, ("reorder_batch_threshold", self.threshold(batch, choice)))

    def prefill_fields(self, choice: Choice) -> Fields:
        """What to set on the builder for its prefill backend."""
        if self.prefills is None:
            return ()
        named = choice.plan.text("prefill_backend")
        return self.prefills.fields(self.mixed_prefill if choice is VLLM_OWN else named)

    def threshold(self, batch: Any, choice: Choice) -> int:
        """The query length up to which requests of ``batch`` take the decode path."""
        if choice is VLLM_OWN:
            return self.thresholds.of_mixed(batch)
        # Blocks of queries that see each other (0.33's drafts) were not measured.
        unlike = getattr(batch, "causal", True) is False
        most = self.most_decode_rows
        if unlike or (most is not None and batch.num_actual_tokens > most):
            return self.thresholds.vllm_own
        return self.thresholds.of_uniform(batch, choice.plan.number("reorder_batch_threshold"))

    def settled(self, batch: Any, metadata: Any, choice: Choice, fields: Fields) -> Choice:
        """The choice for what vLLM has built: for a mixed batch, that of its decodes.

        Args:
            choice: what the batch was built for, with ``fields`` set on the builder.
        """
        if choice is not VLLM_OWN:
            self._check_path(metadata, choice, fields)
        elif metadata.num_decodes and not self.failed:
            return self.choices.decodes(batch, metadata)
        return choice

    def _check_path(self, metadata: Any, choice: Choice, fields: Fields) -> None:
        """Compare the path that a uniform batch has taken with the one its threshold means."""
        if choice.checked:
            return
        threshold = dict(fields).get("reorder_batch_threshold", self.thresholds.vllm_own)
        # What the kernel is launched with, where the plan says that as well, is compared there.
        if threshold == self.thresholds.vllm_own or at_the_launch(choice.plan):
            return
        wanted = "decode" if metadata.max_query_len <= threshold else "prefill"
        seen = "decode" if metadata.num_prefills == 0 else "prefill"
        verified(choice, {"path": wanted}, {"path": seen}, self.deployment.counts)

    def count(self, batch: Any, metadata: Any, choice: Choice) -> None:
        """Count a step that ran outside of graphs."""
        self.deployment.counts.step(choice.outcome)
        if self.deployment.traffic_writer is not None:
            self.deployment.traffic_writer.add_step("eager", choice.outcome, batch, metadata)

    def replay(self, choice: Choice, before: Fields, after: Fields) -> Replay:
        """What the steps do that replay a graph captured for ``choice``; see `Replay`."""
        look_every = STEPS_BETWEEN_LOOKS if self.deployment.traffic_writer is None else 1
        tally = self.deployment.counts.tally(choice.outcome)
        ranks = self.deployment.facts.context_parallel
        return Replay.of(choice, before, after, look_every, tally, ranks)

    def look(self, replay: Replay, batch: Any, metadata: Any) -> None:
        """Do what only some replays need: the traffic histogram, a warning, a report."""
        deployment, choice = self.deployment, replay.choice
        try:
            if batch.max_seq_len > replay.longest_kv:
                deployment.counts.beyond += 1
                once(
                    logging.WARNING,
                    f"mla-tune: {deployment.facts.backend} serves KV lengths beyond the "
                    f"{choice.longest_kv} that the graph of {choice.shape} was tuned for; add "
                    "them to the shapes file",
                )
            if deployment.traffic_writer is not None:
                deployment.traffic_writer.add_step("graph", choice.outcome, batch, metadata)
            if replay.tally.steps % STEPS_BETWEEN_LOOKS == 0:
                deployment.counts.report()
        except Exception as error:
            self.fail(error)
