"""Bounds and answers for ragged batches, against the schedules of drawn ones."""

import heapq
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench_waves import cutter, expected_us, points
from mla_tune.measuring.recording import Recording
from mla_tune.shapes.array_lengths import lengths_in
from mla_tune.shapes.lengths import Lengths
from mla_tune.table.ragged import OUTSIDE, answer_ragged, bounds
from mla_tune.table.waves import Length, ProvenModel, WaveModel
from mla_tune.tuning.wave_fit import proven
from modelled_table import HEADER, MODEL, modelled

DATA = Path(__file__).parents[1] / "data" / "h100"

PROVEN = MODEL.model(HEADER.device.sm_count, 16)
VALUES = tuple(MODEL.values)
lengths = st.lists(st.integers(64, 16384), min_size=1, max_size=200)


def scheduled_us(model: WaveModel, lens: list[int], value: int) -> float:
    """The latency of a ragged batch whose blocks the GPU starts in order, where a slot is free.

    Blocks share their multiprocessors all the time, as the model has it for uniform batches.
    """
    us, sm_count = model.microseconds, model.cutter.sm_count
    count = len(lens) * value
    sharing = min(model.occupancy, math.ceil(count / sm_count)) - 1
    token_us = us["wave_token"] + us["shared_wave_token"] * sharing
    blocks = [us["shared_wave"] * sharing + token_us * kv / value for kv in lens * value]
    ends = blocks[: model.slots]
    heapq.heapify(ends)
    for block in blocks[model.slots :]:
        heapq.heapreplace(ends, ends[0] + block)
    rest = us["launch"] + us["request"] * len(lens) + us["split"] * value + us["block"] * count
    return rest + max(ends)


@given(lengths, st.sampled_from(VALUES))
def test_any_batch_lies_between_the_bounds(lens: list[int], value: int) -> None:
    found = bounds(PROVEN.model, len(lens), int(np.mean(lens)), max(lens), value)
    us = scheduled_us(PROVEN.model, lens, value)
    # The mean is rounded down, and the upper bound allows for whole tiles.
    assert found.least * 0.999 <= us <= found.most


@given(st.integers(1, 300), st.integers(64, 16384), st.sampled_from(VALUES))
def test_a_uniform_batch_lies_between_them_too(batch: int, kv_len: int, value: int) -> None:
    found = bounds(PROVEN.model, batch, kv_len, kv_len, value)
    assert found.least * 0.999 <= PROVEN.model.latency_us(batch, kv_len, value) <= found.most


def drawn(seed: int, batch: int, sigma: float, median: int = 2000) -> list[int]:
    rng = np.random.default_rng(seed)
    lens = np.exp(rng.normal(math.log(median), sigma, batch))
    return [int(length) for length in lens.clip(64, 16384)]


def asked(proven: ProvenModel, lens: list[int]):
    found = lengths_in(np.array(lens))
    default = MODEL.length(found.longest)
    answer = answer_ragged(proven, len(lens), (found.mean, found.mean + 1), [default])
    return answer, default


@pytest.mark.parametrize("batch", [1, 4, 17, 40, 64, 130, 200, 256])
def test_no_plan_is_slower_than_the_default_on_a_drawn_batch(batch: int) -> None:
    plans = 0
    for seed in range(40):
        lens = drawn(seed, batch, sigma=0.2 + seed / 40)
        answer, default = asked(PROVEN, lens)
        if answer.value is not None:
            plans += 1
            assert answer.gain is not None
            gains = [
                scheduled_us(PROVEN.model, lens, value)
                / scheduled_us(PROVEN.model, lens, answer.value)
                for value in default.defaults
            ]
            assert min(gains) >= answer.gain * 0.999
            assert answer.gain > MODEL.gate
    assert plans > 0 or batch > 40


def test_winning_for_the_mean_and_for_the_longest_is_not_enough() -> None:
    """Why there are bounds: one split leaves the long request running alone."""
    lens = [16384, *[1024] * 127]
    few, default = (scheduled_us(PROVEN.model, lens, value) for value in (1, 8))
    assert few > 1.5 * default
    answer, _ = asked(PROVEN, lens)
    assert answer.value != 1


@pytest.fixture(scope="module")
def recorded():
    """A model of one process of an H100, and what another measured of ragged batches."""
    known, ragged = (
        Recording.load(DATA / name)
        for name in ("eager_triton_mla_grid.jsonl.gz", "ragged_4k_triton_mla.jsonl.gz")
    )
    rule = cutter(known.environment, "TRITON_MLA", known.tracks[0].setup.model)
    found = proven(points(known.tracks), rule, 1.01)
    assert found is not None
    measured = []
    for track in ragged.tracks:
        (shape,) = track.workload.shapes
        lengths = Lengths(shape.num_requests, shape.num_kv_tokens, shape.max_kv_len)
        default = track.plans[0].number("num_kv_splits")
        us = {
            plan.number("num_kv_splits"): expected_us(rounds, 0)
            for plan, rounds in track.rounds.items()
        }
        if lengths.is_skewed:
            measured.append((lengths, default, us))
    return found[0], measured


def test_measured_batches_lie_between_the_bounds(recorded) -> None:
    model, measured = recorded
    assert len(measured) == 16
    for lengths, _, us in measured:
        for value, measured_us in us.items():
            found = bounds(model.model, lengths.requests, lengths.mean, lengths.longest, value)
            assert found.least / (1 + OUTSIDE) <= measured_us <= found.most * (1 + OUTSIDE)


def test_no_plan_is_slower_than_the_default_on_a_measured_batch(recorded) -> None:
    model, measured = recorded
    gains = []
    for lengths, default, us in measured:
        means = lengths.mean, lengths.mean + 1
        answer = answer_ragged(model, lengths.requests, means, [Length(lengths.longest, [default])])
        if answer.value is not None:
            gains.append(us[default] / us[answer.value])
            assert answer.gain is not None
            assert gains[-1] >= answer.gain / (1 + answer.error)
    # The bounds are far apart, or the lengths beyond the model's, for all but this one.
    assert gains == pytest.approx([1.453], rel=0.01)


def test_what_was_not_measured_is_a_miss() -> None:
    defaults = [Length(8192, [8])]
    assert answer_ragged(PROVEN, 32, (512, 1024), defaults).gain is None
    assert answer_ragged(PROVEN, 128, (2048, 2048), defaults).gain is None
    assert answer_ragged(PROVEN, 32, (2048, 2048), [Length(32768, [8])]).gain is None


def test_a_kernel_with_a_schedule_of_its_own_is_not_answered() -> None:
    table = modelled(cut="scheduled")
    answer = table.answer_ragged(32, (2048, 2048), (8192, 8192))
    assert answer is not None
    assert answer.outcome == "miss"


def test_the_default_is_an_answer_where_nothing_could_gain() -> None:
    model = MODEL.model_copy(update={"gate": 30.0}).model(132, 16)
    assert answer_ragged(model, 32, (2048, 2048), [Length(8192, [8])]).outcome == "default"


def test_an_error_of_the_model_makes_a_miss_of_a_plan() -> None:
    asked_for = (8, (2048, 2048), [Length(8192, [8])])
    plan = answer_ragged(PROVEN, *asked_for)
    assert plan.outcome == "plan"
    unsure = MODEL.model_copy(update={"error": 1.0}).model(132, 16)
    assert answer_ragged(unsure, *asked_for).outcome == "miss"
