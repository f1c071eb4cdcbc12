"""The policy of a builder's steps, without vLLM."""

from types import SimpleNamespace
from typing import Any

import pytest
from deployments import batch, built, deployed

from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.table import Entry
from mla_tune.vllm.plugin.choice import VLLM_OWN, Choice
from mla_tune.vllm.plugin.counts import Tally
from mla_tune.vllm.plugin.replay import STEPS_BETWEEN_LOOKS
from mla_tune.vllm.plugin.step_policy import StepPolicy
from mla_tune.vllm.plugin.thresholds import Thresholds
from tabled_engine import entry

EXTEND = entry("4q32s256", Plan(reorder_batch_threshold=32))
DECODE = entry("8q1s1k", Plan(num_kv_splits=8))


def policy_of(*entries: Entry, vllm_threshold: int = 1) -> StepPolicy:
    policy = StepPolicy(deployed(*entries), vllm_threshold)
    policy.thresholds = Thresholds(vllm_threshold, 1, entries)
    return policy


class Prefills:
    """Says which prefill backend it was asked for."""

    def fields(self, name: str | None) -> tuple[tuple[str, Any], ...]:
        return () if name is None else (("_prefill_backend", name),)


def with_prefills(policy: StepPolicy, mixed: str | None = None) -> StepPolicy:
    policy.prefills, policy.mixed_prefill = Prefills(), mixed  # type: ignore[assignment]
    return policy


def test_a_uniform_extend_is_built_with_the_tabled_threshold() -> None:
    policy, step = policy_of(EXTEND), batch(4, 32, 256)
    choice = policy.eager(step)
    assert choice.outcome == "hit"
    assert policy.builder_fields(step, choice) == (("reorder_batch_threshold", 32),)


@pytest.mark.parametrize(
    ("step", "most_rows"),
    [(batch(4, 32, 256, causal=False), None), (batch(4, 32, 256), 127)],
    ids=["queries that see each other", "no room for the rows"],
)
def test_what_was_not_measured_decodes_by_vllms_threshold(step: Any, most_rows: int | None) -> None:
    policy = policy_of(EXTEND)
    policy.most_decode_rows = most_rows
    choice = policy.eager(step)
    assert policy.builder_fields(step, choice) == (("reorder_batch_threshold", 1),)


def test_a_choice_of_splits_alone_sets_nothing_on_the_builder() -> None:
    policy, step = policy_of(DECODE), batch(8, 1, 1024)
    choice = policy.eager(step)
    assert choice.plan == Plan(num_kv_splits=8)
    assert policy.builder_fields(step, choice) == ()


def test_the_prefill_backend_of_a_batch_is_its_entrys() -> None:
    named = entry("2q40", Plan(prefill_backend="fa2"))
    policy, step = with_prefills(policy_of(named), mixed="fa3"), batch(2, 40, 40)
    assert policy.builder_fields(step, policy.eager(step)) == (("_prefill_backend", "fa2"),)
    assert policy.prefill_fields(VLLM_OWN) == (("_prefill_backend", "fa3"),)
    # A miss is vLLM's own.
    assert policy.prefill_fields(Choice("2q80", "miss")) == ()


def test_the_decodes_of_a_mixed_batch_are_looked_up_once_it_is_built() -> None:
    policy, step = policy_of(DECODE), batch(9, 1, 1024, num_actual_tokens=108)
    assert policy.eager(step) is VLLM_OWN
    choice = policy.settled(step, built(8, 1, 1), VLLM_OWN, ())
    assert choice.plan == Plan(num_kv_splits=8)


@pytest.mark.parametrize(("prefills", "verified"), [(0, 1), (4, 0)])
def test_the_path_of_a_threshold_is_compared_once(prefills: int, verified: int) -> None:
    policy, step = policy_of(EXTEND), batch(4, 32, 256)
    choice = policy.eager(step)
    fields = policy.builder_fields(step, choice)
    for _ in range(2):
        metadata = built(4 - prefills, prefills, 32)
        assert policy.settled(step, metadata, choice, fields) is choice
    counts = policy.deployment.counts
    assert (counts.verified, counts.not_applied) == (verified, 1 - verified)


def test_after_a_failure_steps_outside_of_graphs_are_vllms(messages: list[str]) -> None:
    policy, step = with_prefills(policy_of(EXTEND), mixed="fa3"), batch(4, 32, 256)
    for _ in range(2):
        policy.fail(RuntimeError("no such luck"))
    assert policy.eager(step) is VLLM_OWN
    assert policy.builder_fields(step, VLLM_OWN) == ()
    assert policy.settled(step, built(4, 0, 32), VLLM_OWN, ()) is VLLM_OWN
    assert policy.deployment.counts.fallbacks == 2
    assert messages == [
        "ERROR mla-tune: TRITON_MLA goes on untuned after RuntimeError: no such luck"
    ]


def test_steps_are_counted_and_recorded_by_where_they_ran() -> None:
    policy, seen = policy_of(DECODE), []
    policy.deployment.traffic_writer = SimpleNamespace(  # type: ignore[assignment]
        add_step=lambda mode, outcome, *_: seen.append((mode, outcome))
    )
    choice = Choice("8q1", "hit", UNTUNED)
    policy.count(None, None, choice)
    replay = policy.replay(choice, (), ())
    assert replay.look_every == 1
    policy.look(replay, batch(8, 1, 1024), None)
    assert seen == [("eager", "hit"), ("graph", "hit")]
    assert policy.deployment.counts.outcomes == {"hit": 1}


def test_replays_are_looked_at_now_and_then(messages: list[str]) -> None:
    policy = policy_of(DECODE)
    replay = policy.replay(Choice("8q1", "hit", UNTUNED, longest_kv=1024), (), ())
    assert replay.look_every == STEPS_BETWEEN_LOOKS
    for _ in range(2):
        policy.look(replay, batch(8, 1, 4096), None)
    assert policy.deployment.counts.beyond == 2
    assert sum("KV lengths beyond the 1024" in message for message in messages) == 1
    assert replay.tally is policy.deployment.counts.tally("hit")
    assert isinstance(replay.tally, Tally)


def test_a_look_that_fails_is_said_and_the_replay_goes_on(messages: list[str]) -> None:
    policy = policy_of(DECODE)
    replay = policy.replay(Choice("8q1", "hit", UNTUNED), (), ())
    policy.look(replay, SimpleNamespace(), None)
    assert policy.failed
    assert "goes on untuned after AttributeError" in messages[0]
