from types import SimpleNamespace
from typing import Any

import torch
from test_lookups import eager, splits

from mla_tune.table import Speedup, Table
from mla_tune.vllm.plugin.choice import VLLM_OWN
from mla_tune.vllm.plugin.lookups import Lookups
from mla_tune.vllm.plugin.step_choices import STEPS_BETWEEN_READINGS, StepChoices
from modelled_table import modelled
from tabled_engine import UNGUARDED, entry, header

TABLE = (
    *(entry(f"{count}q1s1k", splits(8)) for count in (23, 24, 25)),
    *(entry(f"{count}q1s4k", splits(16)) for count in (24, 25)),
)


class Readings:
    """Lengths that count how often they are read."""

    def __init__(self, lens: list[int]) -> None:
        self._lens = torch.tensor(lens, dtype=torch.int32)
        self.count = 0

    def numpy(self) -> Any:
        self.count += 1
        return self._lens.numpy()


def batch(*kv_lens: int) -> Any:
    return SimpleNamespace(
        num_reqs=len(kv_lens),
        max_query_len=1,
        num_actual_tokens=len(kv_lens),
        max_seq_len=max(kv_lens),
        seq_lens_cpu_upper_bound=Readings(list(kv_lens)),
    )


def choices() -> StepChoices:
    deployment: Any = SimpleNamespace(lookups=eager(*TABLE), planned={})
    return StepChoices(deployment)


def test_requests_that_come_and_go_are_read_now_and_then() -> None:
    steps = [batch(*[1024] * (23 + step % 3)) for step in range(STEPS_BETWEEN_READINGS * 4)]
    asked = choices()
    assert {asked.eager(step).plan.get("num_kv_splits") for step in steps} == {8}
    assert sum(step.seq_lens_cpu_upper_bound.count for step in steps) == 1 + 4


def test_a_batch_that_becomes_skewed_is_found_within_the_readings() -> None:
    asked = choices()
    assert asked.eager(batch(*[1024] * 24)).outcome == "hit"
    skewed = batch(1024, *[64] * 23)
    outcomes = [asked.eager(skewed).outcome for _ in range(STEPS_BETWEEN_READINGS)]
    assert outcomes[-1] == "skewed"
    assert asked.eager(batch(1024, *[64] * 22)).outcome == "skewed"


def test_other_lengths_or_many_other_requests_are_read_at_once() -> None:
    asked = choices()
    asked.eager(batch(*[1024] * 24))
    for skewed in (batch(4096, *[64] * 23), batch(4096, *[64] * 19)):
        assert asked.eager(skewed).outcome == "skewed"
        assert skewed.seq_lens_cpu_upper_bound.count == 1
    assert asked.eager(batch(*[1024] * 24)).plan.get("num_kv_splits") == 8


def test_the_length_of_a_step_decides_whether_it_was_read_or_not() -> None:
    asked = choices()
    assert asked.eager(batch(*[1024] * 24)).plan.get("num_kv_splits") == 8
    assert asked.eager(batch(*[4096] * 24)).plan.get("num_kv_splits") == 16
    assert asked.eager(batch(*[4096] * 25)).plan.get("num_kv_splits") == 16
    assert asked.eager(batch(*[1024] * 24)).plan.get("num_kv_splits") == 8


def test_a_batch_of_several_query_lengths_is_vllms() -> None:
    mixed = batch(1024, 1024)
    mixed.num_actual_tokens = 66
    assert choices().eager(mixed) is VLLM_OWN


def test_lengths_that_vllm_does_not_tell_are_taken_as_alike() -> None:
    untold = batch(*[1024] * 24)
    untold.seq_lens_cpu_upper_bound = None
    assert choices().eager(untold).plan.get("num_kv_splits") == 8


def test_a_skewed_batch_is_asked_for_by_its_mean_and_its_longest() -> None:
    deployment: Any = SimpleNamespace(lookups=Lookups(None, modelled()), planned={})
    asked = StepChoices(deployment)
    skewed = batch(8192, *[1200] * 7)
    found = asked.eager(skewed)
    assert found.outcome == "hit"
    assert found is deployment.lookups.steps.ragged(8, 1, 2048, 8192)
    mixed = SimpleNamespace(num_decodes=8, num_decode_tokens=8, num_prefills=1)
    assert asked.decodes(skewed, mixed) is found


def with_gain(low: float) -> StepChoices:
    """Choices of a table with one entry, 8 requests of 1k, that is proven to gain so much."""
    gain = Speedup(median=low, low=low, high=low)
    tabled = entry("8q1s1k", splits(8), speedup=gain, **UNGUARDED)
    mode = {"mode": "eager", "max_model_len": 131072}
    table = Table(header(engine=mode), (tabled,))
    deployment: Any = SimpleNamespace(lookups=Lookups(None, table), planned={})
    return StepChoices(deployment)


def test_a_batch_may_be_as_skewed_as_its_plan_gains() -> None:
    skewed = batch(1024, *[768] * 7)  # 1.28 times the mean
    assert with_gain(1.4).eager(skewed).outcome == "hit"
    assert with_gain(1.3).eager(skewed).outcome == "skewed"
    assert with_gain(1.3).eager(batch(*[1024] * 8)).outcome == "hit"
    mixed = SimpleNamespace(num_decodes=8, num_decode_tokens=8, num_prefills=1)
    assert with_gain(1.3).decodes(skewed, mixed).outcome == "skewed"


def test_a_batch_without_lengths_is_no_division_by_zero() -> None:
    assert with_gain(1.3).eager(batch(*[0] * 8)).outcome in {"miss", "hit"}
