"""What is seen at a kernel's launch, with a kernel and an impl made up here."""

from types import SimpleNamespace
from typing import Any

import pytest

from mla_tune.plan.plan import Plan
from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.counts import Counts
from mla_tune.vllm.plugin.fidelity import ChecksSplits, checked_by_impl

KERNEL = SimpleNamespace(launch=lambda splits: splits)


class VllmsImpl:
    """Launches the kernel with what the metadata says."""

    def forward_mqa(self, _q: Any, _cache: Any, metadata: Any, _layer: Any) -> Any:
        return KERNEL.launch(metadata.splits)


class Impl(ChecksSplits, VllmsImpl):
    def split_argument(self) -> tuple[Any, str, str]:
        return KERNEL, "launch", "splits"


def launched(plan: Plan, splits: int) -> tuple[Choice, Counts]:
    choice, counts = Choice("8q1", "hit", plan), Counts("MADE_UP")
    metadata = SimpleNamespace(splits=splits, **dict(checked_by_impl(choice, counts)))
    assert Impl().forward_mqa(None, None, metadata, None) == splits
    return choice, counts


def test_a_launch_with_the_tabled_splits_is_verified() -> None:
    choice, counts = launched(Plan(num_kv_splits=8), 8)
    assert choice.checked
    assert (counts.verified, counts.not_applied) == (1, 0)


def test_a_launch_with_others_is_said(messages: list[str]) -> None:
    _, counts = launched(Plan(num_kv_splits=8), 4)
    assert (counts.verified, counts.not_applied) == (0, 1)
    assert "num_kv_splits=8 for 8q1, but the kernel got 4" in messages[0]


@pytest.mark.parametrize("plan", [Plan(reorder_batch_threshold=4), Plan(prefill_backend="fa3")])
def test_a_plan_without_splits_runs_unwatched(plan: Plan) -> None:
    """An impl may be handed one: it decodes as vLLM has it."""
    choice, counts = launched(plan, 2)
    assert not choice.checked
    assert (counts.verified, counts.not_applied) == (0, 0)


def test_one_launch_of_a_choice_is_watched_and_nothing_stays_in_the_way() -> None:
    launch = KERNEL.launch
    choice, counts = Choice("8q1", "hit", Plan(num_kv_splits=8)), Counts("MADE_UP")
    metadata = SimpleNamespace(splits=8, **dict(checked_by_impl(choice, counts)))
    for _ in range(3):
        Impl().forward_mqa(None, None, metadata, None)
    assert counts.verified == 1
    assert KERNEL.launch is launch


def test_a_kernel_that_is_not_launched_is_said(
    monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    monkeypatch.setattr(VllmsImpl, "forward_mqa", lambda *_: 8)
    _, counts = launched(Plan(num_kv_splits=8), 8)
    assert (counts.verified, counts.not_applied) == (0, 1)
    assert "but the kernel got None" in messages[0]
