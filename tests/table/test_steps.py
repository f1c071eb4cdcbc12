"""What an eager table says of a step."""

import math

import pytest

from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes import BatchShape, RequestGroup
from mla_tune.shapes.lengths import ALIKE, Lengths
from mla_tune.table import Entry, Speedup, Table
from mla_tune.table.ragged import OUTSIDE
from mla_tune.table.steps import EagerSteps, StepAnswer
from modelled_table import HEADER, modelled

PLAN = Plan(num_kv_splits=8)


def with_gain(low: float, plan: Plan = PLAN, backend: str = "TRITON_MLA") -> Table:
    """A table with one entry, 8 requests of 1k, that is proven to gain so much."""
    gain = Speedup(median=low, low=low, high=low)
    entry = Entry(shape="8q1s1k", plan=plan, latency_us=1.0, default_us=low, speedup=gain)
    return Table(HEADER.model_copy(update={"backend": backend}), (entry,))


def steps_of(table: Table | None) -> EagerSteps[StepAnswer]:
    return EagerSteps(table, lambda _, answer: answer)


def batch(longest: int, others: int) -> BatchShape:
    return BatchShape.of([RequestGroup(1, longest, 1), RequestGroup(1, others, 7)])


def test_a_batch_may_be_as_skewed_as_its_plan_gains() -> None:
    skewed = batch(1024, 768)  # 1.28 times the mean
    found = with_gain(1.4).lookup_shape(skewed)
    assert (found.is_hit, found.is_exact, found.plan) == (True, False, PLAN)
    assert found.factor == pytest.approx(1.28)
    missed = with_gain(1.3).lookup_shape(skewed)
    assert (missed.is_hit, missed.plan) == (False, UNTUNED)
    assert missed.reason == "lengths differ within the batch"
    # The default covers all lengths up to where no uniform entry speaks.
    assert with_gain(1.0, UNTUNED).lookup_shape(skewed).is_hit
    assert not with_gain(9.0).lookup_shape(batch(1024, 500)).is_hit
    assert with_gain(1.4).lookup_shape(batch(1151, 1100)).plan == PLAN
    assert not with_gain(1.4).lookup_shape(batch(1152, 1100)).is_hit


def test_what_a_scheduler_evens_out_gains_on_uniform_batches_alone() -> None:
    scheduled = with_gain(2.0, backend="FLASH_ATTN_MLA")
    assert scheduled.lookup_shape(batch(1024, 1010)).is_hit
    assert not scheduled.lookup_shape(batch(1024, 900)).is_hit
    assert steps_of(scheduled).uniform(8, 1, 1024).most_skew == ALIKE


def test_the_gain_that_the_model_has_proven_covers_as_much() -> None:
    table = modelled()
    steps = steps_of(table)
    found = steps.uniform(1, 1, 4096)
    assert found.entry is None
    assert found.gain is not None
    answer = table.answer(1, (4096, 4607))
    assert answer is not None
    assert found.most_skew == pytest.approx(found.gain / (1 + answer.error) / (1 + OUTSIDE))
    assert steps.uniform(31, 1, 16000).most_skew == math.inf


def test_a_kind_of_step_is_looked_up_once() -> None:
    steps = steps_of(modelled())
    assert steps.uniform(32, 1, 4096) is steps.uniform(32, 1, 4600)
    assert steps.ragged(8, 1, 2048, 8192) is steps.ragged(8, 1, 2049, 8193)
    before = steps.uniform(32, 1, 4096)
    steps.forget()
    assert steps.uniform(32, 1, 4096) is not before


def test_lengths_that_are_not_known_are_taken_as_alike() -> None:
    steps = steps_of(modelled())
    assert steps.step(32, 1, 4096, None) is steps.uniform(32, 1, 4096)
    skewed = Lengths(32, 32 * 1024, 4096)
    assert steps.step(32, 1, 4096, skewed) is steps.ragged(32, 1, 1024, 4096)


def test_without_a_table_every_step_is_a_miss() -> None:
    steps = steps_of(None)
    assert steps.uniform(8, 1, 1024).reason == "no table for eager steps"
    assert steps.ragged(8, 1, 1024, 4096).outcome == "skewed"
