"""Graph tables of an H100's recordings, with the lengths beyond 16k as guards."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fake_device import WARD
from mla_tune.measuring.recording import RecordedBench, Recording
from mla_tune.measuring.recording.content import Track
from mla_tune.plan.plan import Plan
from mla_tune.shapes import Case, Workload
from mla_tune.tuning.quarantine import Quarantine
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.study import Journal
from mla_tune.tuning.tuner import Tuner

H100 = Path(__file__).parents[1] / "data" / "h100"
K = 1024
WEIGHTS = {K: 2.0, 4 * K: 2.0, 16 * K: 1.0}
SIZES = (1, 2, 4, 40, 72, 160, 512)


def cut(track: Track, guards: tuple[int, ...]) -> Track:
    """The track with what is recorded of `WEIGHTS` and ``guards`` alone."""
    cases = [
        Case(shape, WEIGHTS.get(shape.max_kv_len, 0.0))
        for shape in track.workload.shapes
        if shape.max_kv_len in (*WEIGHTS, *guards)
    ]
    workload = Workload.of(cases)
    columns = [track.workload.shapes.index(shape) for shape in workload.shapes]
    rounds = {
        plan: [tuple(row[column] for column in columns) for row in rows]
        for plan, rows in track.rounds.items()
    }
    return replace(track, workload=workload, rounds=rounds)


def speedups(track: Track, plan: Plan) -> np.ndarray:
    """Of ``plan`` over the default at every recorded length."""
    default, chosen = (np.median(np.array(list(track.rounds[p])), axis=0)
                       for p in (track.plans[0], plan or track.plans[0]))  # fmt: skip
    return default / chosen


@pytest.fixture
def answers(tmp_path):
    """Each size's speed-ups at all recorded lengths under the plan that a tuner publishes."""

    def found(backend: str, guards: tuple[int, ...]):
        recording = Recording.load(H100 / f"graph_{backend}.jsonl.gz")
        whole = [t for t in recording.tracks if t.workload.shapes[0].num_requests in SIZES]
        tracks = tuple(cut(track, guards) for track in whole)
        bench = RecordedBench(replace(recording, tracks=tracks))
        bench.open(tracks[0].setup)
        quarantine = Quarantine(tmp_path / "quarantine.yaml")
        settings = Settings(confirmation_s=600.0, confirmation_rounds=32)
        tuner = Tuner(bench, Journal.in_memory(), quarantine, WARD, settings)
        entries = [tuner.tune(track.workload) for track in tracks]
        return [speedups(t, e.plan) for t, e in zip(whole, entries, strict=True)], entries

    return found


@pytest.mark.parametrize(("backend", "gain"), [("triton_mla", 2.0), ("flash_attn_mla", 1.03)])
def test_no_length_is_slower_than_by_default(answers, backend, gain):
    found, entries = answers(backend, (32 * K, 64 * K, 128 * K))
    assert min(map(np.min, found)) >= 0.99
    assert [entry.holds_to for entry in entries] == [128 * K] * 6 + [64 * K]
    assert np.exp(np.mean([np.log(each[:3]).mean() for each in found])) > gain


def test_lengths_between_the_guards_are_no_slower_either(answers):
    """32k and 64k are played back to nobody: the guard is the end alone."""
    found, _ = answers("triton_mla", (128 * K,))
    assert min(map(np.min, found)) >= 0.99


def test_without_guards_few_requests_lose_half_at_128k(answers):
    found, _ = answers("triton_mla", ())
    assert found[0][-1] < 0.7
