"""What was measured can be played back, noise included."""

from contextlib import closing
from pathlib import Path

import pytest

from fake_device import DEFAULT, BiasedBench, FakeBench, splits, workload
from mla_tune.measuring.recording import RecordedBench, Recorder, Recording, RecordingFile
from mla_tune.plan.failure import PlanFailure
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, Case, MlaDimensions, Workload

SETUP = Setup("TORCH_MLA", MlaDimensions(2))


def recorded(path: Path, bench: FakeBench, every_plan_rounds: int = 6) -> Recording:
    with closing(RecordingFile(path)) as file:
        recorder = Recorder(bench, file, every_plan_rounds)
        recorder.open(SETUP)
        recorder.load(workload())
    return Recording.load(path)


@pytest.mark.parametrize("name", ["recording.jsonl", "recording.jsonl.gz"])
def test_every_plan_is_recorded_side_by_side(tmp_path: Path, name: str) -> None:
    recording = recorded(tmp_path / name, FakeBench({DEFAULT: 10.0, splits(8): 8.0}))
    (track,) = recording.tracks
    assert track.setup == SETUP
    assert str(track.workload) == str(workload())
    assert track.plans == (DEFAULT, splits(8))
    assert {plan: len(rounds) for plan, rounds in track.rounds.items()} == {
        DEFAULT: 6,
        splits(8): 6,
    }


def test_a_failing_plan_is_recorded_with_its_cause_and_the_others_with_their_samples(
    tmp_path: Path,
) -> None:
    bench = FakeBench(
        {DEFAULT: 10.0, splits(8): 8.0, splits(16): 7.0}, race_faults={splits(8): "died"}
    )
    recording = recorded(tmp_path / "recording", bench)
    (track,) = recording.tracks
    assert set(track.rounds) == {DEFAULT, splits(16)}
    assert track.failures[splits(8)][0] == "died"
    playback = RecordedBench(recording)
    playback.open(SETUP)
    playback.load(workload())
    with pytest.raises(PlanFailure) as caught:
        playback.race([splits(8)], 1, seed=0)
    assert caught.value.plan == splits(8)
    assert caught.value.kind == "died"


def test_playback_draws_only_what_was_recorded_and_aligned(tmp_path: Path) -> None:
    recording = recorded(tmp_path / "recording", FakeBench({DEFAULT: 10.0, splits(8): 8.0}))
    rounds = recording.tracks[0].rounds
    playback = RecordedBench(recording, seed=3)
    playback.open(SETUP)
    playback.load(workload())
    taken = playback.race([DEFAULT, splits(8)], 20, seed=0)
    pairs = set(zip(rounds[DEFAULT], rounds[splits(8)], strict=True))
    drawn = set(zip(taken[DEFAULT].rounds, taken[splits(8)].rounds, strict=True))
    assert drawn <= pairs
    assert playback.rounds_spent == 40


def test_seeds_differ_and_repeat(tmp_path: Path) -> None:
    recording = recorded(tmp_path / "recording", FakeBench({DEFAULT: 10.0}, noise=0.1), 50)

    def draw(seed: int) -> object:
        playback = RecordedBench(recording, seed)
        playback.open(SETUP)
        playback.load(workload())
        return playback.race([DEFAULT], 20, seed=0)[DEFAULT]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_a_tune_is_recorded_as_it_goes(tmp_path: Path) -> None:
    with closing(RecordingFile(tmp_path / "recording")) as file:
        recorder = Recorder(FakeBench({DEFAULT: 10.0, splits(8): 8.0}), file)
        recorder.open(SETUP)
        recorder.load(workload())
        recorder.race([DEFAULT], 3, seed=0)
        recorder.race([DEFAULT, splits(8)], 2, seed=0)
    rounds = Recording.load(tmp_path / "recording").tracks[0].rounds
    assert (len(rounds[DEFAULT]), len(rounds[splits(8)])) == (5, 2)


@pytest.mark.parametrize("every_plan_rounds", [0, 6])
def test_other_processes_are_not_recorded_until_the_next_section(
    tmp_path: Path, every_plan_rounds: int
) -> None:
    def measure(recorder: Recorder) -> None:
        recorder.load(workload())
        recorder.race([DEFAULT, splits(8)], 6, seed=0)

    with closing(RecordingFile(tmp_path / "recording")) as file:
        recorder = Recorder(BiasedBench({DEFAULT: 10.0, splits(8): 8.0}), file, every_plan_rounds)
        for setup in (SETUP, Setup("TORCH_MLA", MlaDimensions(4))):
            recorder.open(setup)
            measure(recorder)
            assert recorder.renew()
            measure(recorder)
    tracks = Recording.load(tmp_path / "recording").tracks
    assert [len(track.rounds[DEFAULT]) for track in tracks] == [6, 6]


def test_a_recording_has_one_process(tmp_path: Path) -> None:
    recording = recorded(tmp_path / "recording", FakeBench({DEFAULT: 10.0, splits(8): 8.0}))
    assert not RecordedBench(recording).renew()


def test_guards_are_played_back_as_such(tmp_path: Path) -> None:
    guarded = Workload.parse_measured("8q1s1k+{256,64k}+3q1s9k_5q1s1k")
    bench = FakeBench({DEFAULT: 10.0, splits(8): 8.0})
    with closing(RecordingFile(tmp_path / "recording")) as file:
        recorder = Recorder(bench, file, 6)
        recorder.open(SETUP)
        recorder.load(guarded)
        recorder.load(workload("8q1s1k"))
    recording = Recording.load(tmp_path / "recording")
    assert [track.workload for track in recording.tracks] == [guarded, workload("8q1s1k")]
    playback = RecordedBench(recording)
    playback.open(SETUP)
    playback.load(guarded)
    taken = playback.race([DEFAULT], 1, seed=0)
    assert len(taken[DEFAULT].rounds[0]) == 4
    assert playback.plan_space(guarded.shapes).default == DEFAULT


def test_cases_that_a_race_left_out_are_drawn_from_the_rounds_that_have_them(
    tmp_path: Path,
) -> None:
    lengths = Workload(tuple(Case(BatchShape.parse(f"8q1s{n}k"), float(n % 2)) for n in (1, 2)))
    bench = FakeBench({DEFAULT: {1024: 100.0, 2048: 200.0}})
    with closing(RecordingFile(tmp_path / "a.jsonl")) as file:
        recorder = Recorder(bench, file)
        recorder.open(SETUP)
        recorder.load(lengths)
        recorder.race([DEFAULT], 3, 0, (0,))
    playback = RecordedBench(Recording.load(tmp_path / "a.jsonl"))
    playback.open(SETUP)
    playback.load(lengths)
    with pytest.raises(PlanFailure, match="not recorded"):
        playback.race([DEFAULT], 2, 0)
    assert playback.race([DEFAULT], 2, 0, (0,))[DEFAULT].of_case(0) == (100.0, 100.0)
