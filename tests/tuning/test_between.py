"""From trials to a table's model, with the recording of an H200 in the device's place."""

from dataclasses import replace
from pathlib import Path

import pytest

from mla_tune.measuring.recording import RecordedBench, Recording
from mla_tune.plan.plan import Plan
from mla_tune.shapes import BatchShape, Case, Workload
from mla_tune.table import Table
from mla_tune.tuning.api import SilentReporter
from mla_tune.tuning.between import Trials, between
from mla_tune.tuning.campaign import Campaign
from mla_tune.tuning.recorded_jobs import recorded_jobs
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.study import Outcome
from modelled_table import HEADER

RECORDED = Path(__file__).parents[1] / "data" / "h200_16_heads.jsonl.gz"
GATE = 1.01


def splits(count: int) -> Plan:
    return Plan(num_kv_splits=count)


def workload(spec: str) -> Workload:
    return Workload((Case(BatchShape.parse(spec)),))


def latency_us(batch: int, kv_len: int, count: int) -> float:
    waves = -(-batch * count // 264)
    return 20 + 0.3 * count + 0.1 * waves * kv_len / count


def trials(kv_lens=(1024, 4096, 16384), batches=(2, 8, 32, 128), default_of=None):
    return [
        Trials(
            workload(f"{batch}q1s{kv_len // 1024}k"),
            splits(default_of(batch) if default_of else kv_len // 512),
            [
                Outcome(splits(count), latency_us(batch, kv_len, count))
                for count in (1, 2, 4, 8, 16, 32, 64)
            ],
        )
        for batch in batches
        for kv_len in kv_lens
    ]


def fitted(*args, default_at=lambda _kv_len: None, **more):
    return between(trials(*args, **more), HEADER, "tiled", GATE, default_at)


def test_trials_of_single_tokens_by_one_knob_are_a_point():
    outcomes = [
        Outcome(splits(2), 50.0, rounds=((50.0,),)),
        Outcome(splits(4), 60.0, "screened out", ((60.0,),)),
        Outcome(splits(8), None, "died: worker"),
        Outcome(Plan(num_kv_splits=16, reorder_batch_threshold=1), 40.0),
    ]
    point = Trials(workload("8q1s1k"), splits(2), outcomes).point
    assert (point.batch, point.kv_len, point.default) == (8, 1024, 2)
    assert point.latency_us == {2: 50.0, 4: 60.0}


def test_plans_with_another_launch_are_no_part_of_the_model() -> None:
    outcomes = [Outcome(splits(2), 20.0), Outcome(splits(4), 15.0)]
    launched = Outcome(splits(4).having(block_n=64, num_warps=8), 9.0)
    alone, beside = (
        Trials(workload("8q1s1k"), splits(2), some).point
        for some in (outcomes, [*outcomes, launched])
    )
    assert alone == beside is not None


@pytest.mark.parametrize("spec", ["8q4s1k", "q1s1k_2q1s4k", "q64"])
def test_other_batches_are_none(spec):
    outcomes = [Outcome(splits(2), 50.0), Outcome(splits(4), 60.0)]
    assert Trials(workload(spec), splits(2), outcomes).point is None


def test_a_default_that_failed_leaves_nothing_to_compare_with():
    outcomes = [Outcome(splits(2), None, "died"), Outcome(splits(4), 60.0), Outcome(splits(8), 5.0)]
    assert Trials(workload("8q1s1k"), splits(2), outcomes).point is None


def test_too_few_points_are_no_model():
    assert fitted(batches=(2, 8)) is None
    assert fitted().points == 12


def test_a_default_by_the_number_of_requests_is_no_model():
    assert fitted(default_of=lambda batch: min(64, batch)) is None


def test_defaults_are_asked_for_between_the_points_and_kept_at_the_ends_of_runs():
    asked = []

    def default_at(kv_len):
        asked.append(kv_len)
        return splits(2 if kv_len < 1536 else 4 if kv_len < 3072 else 8)

    model = fitted(kv_lens=(1024, 2048, 4096), default_at=default_at)
    assert asked
    assert not {1024, 2048, 4096} & set(asked)
    assert 1024 < min(asked) < max(asked) < 4096
    assert model.defaults == {1024: 2, 1535: 2, 1536: 4, 3071: 4, 3072: 8, 4096: 8}
    assert model.length(2000).defaults == (4,)


def test_a_default_that_nobody_knows_is_any_between_its_neighbours():
    assert fitted().defaults == {1024: 2, 4096: 8, 16384: 32}


def played(folder: Path, every: int, **environment) -> Path:
    """The table of some of the recording's eager single-token batches of TRITON_MLA."""
    recording = Recording.load(RECORDED)
    tracks = [
        track
        for track in recording.tracks
        if (track.setup.backend, track.setup.mode) == ("TRITON_MLA", "eager")
        and track.workload.shapes[0].query_lens == (1,)
    ]
    device = replace(recording.environment, **environment)
    recording = replace(recording, environment=device, tracks=tuple(tracks[::every]))
    (job,) = recorded_jobs(recording, folder)
    bench = RecordedBench(recording)
    Campaign(bench, folder / "study", Settings(confirmation_rounds=16), SilentReporter()).run([job])
    return job.path


def test_a_table_that_is_done_carries_its_model(tmp_path):
    path = played(tmp_path, every=2)
    table = Table.load(path)
    assert (table.between.points, table.between.occupancy) == (18, 2)
    assert 0.01 < table.between.error < 0.06
    assert table.between.regret < 0.005
    # In the last eighth of an octave below the longest length that was measured.
    found = table.lookup(batch=14, kv_len=4000)
    assert (found.entry, found.plan) == (None, splits(16))
    assert found.predicted_gain > 1.1

    before = path.read_bytes()
    assert played(tmp_path, every=2) == path
    assert path.read_bytes() == before
    # A run for a few of its shapes leaves the model to those of all.
    played(tmp_path, every=4)
    assert path.read_bytes() == before


def test_a_cpu_has_no_waves(tmp_path):
    path = played(tmp_path, every=4, compute_capability=None)
    assert Table.load(path).between is None
