"""A recording goes on where it was left, and touches no file that is none."""

import errno
import gzip
import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from fake_device import DEFAULT, ENVIRONMENT, FakeBench, splits, workload
from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.measuring.recording import Recorder, Recording, RecordingFile
from mla_tune.session import Setup
from mla_tune.shapes import MlaDimensions

SETUP = Setup("TORCH_MLA", MlaDimensions(2))
NAMES = ["recording.jsonl", "recording.jsonl.gz"]


def bench() -> FakeBench:
    return FakeBench({DEFAULT: 10.0, splits(8): 8.0}, noise=0.1)


def record(path: Path, races: int = 3, spec: str = "8q1s1k", rounds: int = 0) -> FakeBench:
    measuring = bench()
    with closing(RecordingFile(path)) as file:
        recorder = Recorder(measuring, file, rounds)
        recorder.open(SETUP)
        recorder.load(workload(spec))
        for _ in range(races):
            recorder.race([DEFAULT, splits(8)], 2, seed=0)
    return measuring


def lengths(path: Path) -> list[int]:
    return [
        len(rounds) for track in Recording.load(path).tracks for rounds in track.rounds.values()
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_second_run_goes_on_where_the_first_was(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    record(path, 3)
    first = path.read_bytes()
    record(path, 2)
    record(path, 1, "4q1s1k")
    assert path.read_bytes().startswith(first)
    assert lengths(path) == [10, 10, 2, 2]


@pytest.mark.parametrize("name", NAMES)
def test_a_kill_at_any_byte_costs_the_last_race_at_most(tmp_path: Path, name: str) -> None:
    path, whole = tmp_path / name, tmp_path / f"whole.{name}"
    record(path, 2)
    begun = path.stat().st_size
    record(whole, 4)
    content = whole.read_bytes()
    for cut in range(begun, len(content), 17):
        path.write_bytes(content[:cut])
        kept = lengths(path)
        assert kept in ([4, 4], [6, 6], [8, 8])
        record(path, 1)
        assert lengths(path) == [kept[0] + 2] * 2
        assert not Recording.load(path).notices


def test_what_was_cut_off_is_said(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    record(path)
    path.write_bytes(path.read_bytes()[:-5])
    (notice,) = Recording.load(path).notices
    assert "cut off after line 5" in notice
    with closing(RecordingFile(path)) as file:
        assert file.earlier is not None
        assert file.earlier.notices == (notice,)
    assert Recording.load(path).notices == ()


def test_a_torn_file_of_a_single_member_is_taken_up_whole(tmp_path: Path) -> None:
    """As version 1 wrote them: what can be read of it is kept, and its mode."""
    path = tmp_path / "recording.jsonl.gz"
    record(tmp_path / "plain", 400)
    content = gzip.compress((tmp_path / "plain").read_bytes())
    path.write_bytes(content[: len(content) * 2 // 3])
    path.chmod(0o640)
    before = lengths(path)
    assert before[0] > 100
    record(path, 1)
    assert lengths(path) == [before[0] + 2] * 2
    assert path.stat().st_mode & 0o777 == 0o640
    assert {file.name for file in tmp_path.iterdir()} == {"plain", path.name}


def test_a_last_line_without_its_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    record(path)
    path.write_bytes(path.read_bytes()[:-1])
    record(path, 1)
    assert lengths(path) == [8, 8]


@pytest.mark.parametrize("content", [b"model: deepseek-v3\n", b"{}", b"\x00\xff", b"[1]\n", b"x"])
def test_a_file_that_is_no_recording_is_not_touched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "shapes.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"shapes\.yaml"):
        RecordingFile(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["absent/run.jsonl", "file/run.jsonl", "x" * 300])
def test_a_path_where_no_file_can_be_made_is_bad_input(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written") as caught:
        RecordingFile(tmp_path / name)
    assert "--record" in caught.value.remedy


def test_another_environment_is_refused_with_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    record(path)
    before = path.read_bytes()
    elsewhere = replace(bench(), environment=replace(ENVIRONMENT, software={"torch": "2.14.0"}))
    with closing(RecordingFile(path)) as file, pytest.raises(InputError) as caught:
        Recorder(elsewhere, file)
    assert "has software: torch 2.13.0, this run has 2.14.0" in caught.value.what
    assert path.read_bytes() == before


def test_two_runs_do_not_share_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    with closing(RecordingFile(path)), pytest.raises(InputError, match="in use by another run"):
        RecordingFile(path)
    record(path)


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / "recording").symlink_to(victim)
    monkeypatch.setattr("mla_tune.files.own_file.is_planted", lambda _link: True)
    with pytest.raises(InputError, match="is a link"):
        RecordingFile(tmp_path / "recording")
    assert victim.read_text() == "kept"


def test_a_link_of_ones_own_leads_to_the_recording(tmp_path: Path) -> None:
    (tmp_path / "link.gz").symlink_to(tmp_path / "recording.gz")
    record(tmp_path / "link.gz", 200)
    target = tmp_path / "recording.gz"
    target.write_bytes(gzip.compress(gzip.decompress(target.read_bytes()))[:-9])
    record(tmp_path / "link.gz", 1)
    assert (tmp_path / "link.gz").is_symlink()
    assert lengths(target)[0] > 100


def test_a_full_disk_keeps_whole_lines_and_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "recording"
    file = RecordingFile(path)
    recorder = Recorder(bench(), file)
    recorder.open(SETUP)
    recorder.load(workload())
    recorder.race([DEFAULT], 2, seed=0)
    before, write = path.read_bytes(), os.write

    def half_written(handle: int, content: memoryview) -> int:
        if len(content) < 40:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, content[: len(content) // 2])

    monkeypatch.setattr("mla_tune.measuring.recording.file.os.write", half_written)
    with pytest.raises(EnvironmentFailure, match="No space left"):
        recorder.race([DEFAULT], 2, seed=0)
    assert path.read_bytes() == before
    file.close()


def test_a_workload_raced_by_an_earlier_run_is_not_raced_again(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    assert record(path, 0, rounds=6).raced
    assert not record(path, 0, rounds=6).raced
    assert record(path, 0, rounds=7).raced
    assert lengths(path) == [13, 13]


def test_no_line_is_longer_than_a_reader_takes(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    record(path, 0, rounds=25_000)
    lines = path.read_bytes().splitlines()
    assert max(map(len, lines)) < 1 << 20
    assert [len(race["rounds"]) for race in json.loads(lines[3])["race"]] == [10_000] * 2
    assert lengths(path) == [25_000] * 2
