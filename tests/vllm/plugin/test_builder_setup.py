"""What is found out for a builder while it is made, without vLLM."""

from dataclasses import replace
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
from deployments import KNOBS, batch, deployed

from mla_tune.plan.plan import Plan
from mla_tune.table import Entry
from mla_tune.vllm.plugin.builder_setup import BuilderSetup
from tabled_engine import entry


class Support(Enum):
    NEVER = 0
    SINGLE_ONLY = "single_only"
    UNIFORM = "uniform"
    VARLEN = "varlen"


class Builder:
    """What vLLM's builder brings, of a class whose threshold is 64."""

    mla_tune_backend, mla_tune_knobs = "TRITON_MLA", frozenset(KNOBS)
    reorder_batch_threshold = 64
    kv_cache_spec = None

    def __init__(self, support: Support = Support.VARLEN, drafts: int = 0, **parallel: Any) -> None:
        self.query_len_support = self.graphs = support
        self.drafts = drafts
        full = SimpleNamespace(has_full_cudagraphs=lambda: True)
        self.vllm_config = SimpleNamespace(
            parallel_config=SimpleNamespace(**parallel),
            compilation_config=SimpleNamespace(cudagraph_mode=full, cudagraph_capture_sizes=[3, 6]),
            scheduler_config=SimpleNamespace(max_num_seqs=64),
        )

    def get_cudagraph_support(self, *_: object) -> Support:
        return self.graphs

    def _init_reorder_batch_threshold(self, threshold: int, many_tokens: bool, _: bool) -> None:
        self.reorder_batch_threshold = threshold + (self.drafts if many_tokens else 0)

    def note_vllms_own(self) -> None:
        """Nothing to note."""


EXTEND = entry("4q64s256", Plan(reorder_batch_threshold=16), default_us=20.0)


def setup_of(builder: Builder, *entries: Entry) -> BuilderSetup:
    deployment = deployed(*entries)
    return BuilderSetup(builder, lambda *_: deployment)


def test_drafts_are_asked_of_a_copy() -> None:
    builder = Builder(drafts=2)
    assert setup_of(builder).decode_query_len() == 3
    assert builder.reorder_batch_threshold == 64


def test_graphs_are_captured_for_single_tokens_and_for_drafts() -> None:
    assert set(setup_of(Builder(drafts=2)).captures()) == {(3, 1), (6, 1), (1, 3), (2, 3)}
    assert setup_of(Builder(Support.SINGLE_ONLY, drafts=2)).captures() == ((3, 1), (6, 1))
    assert setup_of(Builder(Support.NEVER)).captures() == ()


def test_mixed_batches_get_the_best_single_threshold(messages: list[str]) -> None:
    policy = setup_of(Builder(), EXTEND).policy()
    assert policy is not None
    assert (policy.thresholds.vllm_own, policy.thresholds.mixed) == (64, 16)
    assert messages == ["INFO mla-tune: TRITON_MLA: threshold 16 instead of 64 for mixed batches"]


@pytest.mark.parametrize(
    "builder", [Builder(Support.SINGLE_ONLY), Builder(enable_dbo=True), Builder(use_ubatching=True)]
)
def test_thresholds_stay_vllms_where_another_would_be_wrong(builder: Builder) -> None:
    policy = setup_of(builder, EXTEND).policy()
    assert policy is not None
    assert policy.thresholds.mixed == 64
    assert policy.thresholds.of_uniform(SimpleNamespace(max_query_len=64), None) == 64
    assert not policy.failed


class SparseBuilder(Builder):
    """As those of sparse backends, which set a threshold by the heads."""

    reorder_batch_threshold = None
    require_uniform_decodes = False

    def __init__(self) -> None:
        super().__init__()
        del self.query_len_support
        self.reorder_batch_threshold = 64


def test_a_sparse_backends_threshold_only_falls(messages: list[str]) -> None:
    """More decodes would be more for the indexer to pick, which no latency of a table includes."""
    longer = entry("4q128s256", Plan(reorder_batch_threshold=128), default_us=20.0)
    deployment = deployed(EXTEND, longer)
    deployment.facts = replace(deployment.facts, index_topk=256)
    policy = BuilderSetup(SparseBuilder(), lambda *_: deployment).policy()
    assert policy is not None
    thresholds = policy.thresholds
    assert (thresholds.vllm_own, thresholds.mixed) == (64, 16)
    assert thresholds.of_uniform(batch(4, 64, 256), 16) == 16
    assert thresholds.of_uniform(batch(4, 128, 256), 128) == 64
    # In the bucket of 256, but beyond the top-k.
    assert thresholds.of_uniform(batch(4, 64, 257), 16) == 64
    assert (
        "INFO mla-tune: TRITON_MLA: 4q128s256 stay vLLM's: a threshold above its own 64"
        in (messages[0])
    )


def test_without_a_deployment_all_is_vllms(messages: list[str]) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("no such luck")

    assert BuilderSetup(Builder(), fail).policy() is None
    assert messages == [
        "ERROR mla-tune: TRITON_MLA goes on untuned after RuntimeError: no such luck"
    ]


def test_what_vllms_own_cannot_be_noted_of_stays_vllms(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(Builder, "note_vllms_own", fail)
    assert setup_of(Builder(), EXTEND).policy() is None


def test_a_failure_after_the_deployment_leaves_steps_outside_of_graphs_to_vllm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr("mla_tune.vllm.plugin.builder_setup.best_prefill_backend", fail)
    policy = setup_of(Builder(), EXTEND).policy()
    assert policy is not None
    assert policy.failed
    assert policy.deployment.counts.fallbacks == 1


def test_a_failed_reservation_is_a_failed_policy() -> None:
    setup = setup_of(Builder(), EXTEND)
    assert setup.deployment.counts.fallbacks == 0
    setup.fail(RuntimeError("no such luck"))
    policy = setup.policy()
    assert policy is not None
    assert policy.failed
    assert policy.deployment.counts.fallbacks == 1
