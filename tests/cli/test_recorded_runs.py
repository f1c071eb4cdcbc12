"""Runs that keep their samples, and runs from kept samples."""

from pathlib import Path

from command_line import MODEL, options, refused


def test_a_recording_played_into_a_clone_of_this_project_says_so(cli, tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    (clone / "src" / "mla_tune").mkdir(parents=True)
    (clone / "src" / "mla_tune" / "__init__.py").touch()
    monkeypatch.chdir(clone)
    recording = Path(__file__).parents[1] / "data" / "seeds" / "recording.jsonl"
    study = ["--study-dir", tmp_path / "study"]
    code, out, err = cli("--backend", "RECORDED", "--recording", recording, *study)
    assert code == 0, err
    assert "is this project's own folder" in out
    assert "both or neither" in refused(cli, "--recording", recording, *study)


def test_a_recording_is_played_back(cli, write, tmp_path):
    shapes = write(MODEL + "batch_specs: [2q1s300]\n")
    recording = tmp_path / "run.jsonl.gz"
    code, _, err = cli(*options(tmp_path), "--shapes", shapes, "--record", recording)
    assert code == 0, err
    played = ["--backend", "RECORDED", "--recording", recording, "--out", tmp_path / "played",
              "--study-dir", tmp_path / "study2"]  # fmt: skip
    code, out, err = cli(*played)
    assert code == 0, err
    assert "2q1s300" in out
    assert len(list((tmp_path / "played").glob("*.yaml"))) == 1


def test_a_dry_run_says_what_is_decided_and_writes_nothing(cli, tmp_path):
    recording = Path(__file__).parents[1] / "data" / "seeds" / "recording.jsonl"
    played = ["--backend", "RECORDED", "--recording", recording, "--out", tmp_path / "out",
              "--study-dir", tmp_path / "study"]  # fmt: skip
    code, out, err = cli("tune", *played, "--dry-run")
    assert code == 0, err
    assert "to tune: " in out
    assert list(tmp_path.iterdir()) == []
    assert cli("tune", *played)[0] == 0
    code, out, err = cli("tune", *played, "--dry-run")
    assert code == 0, err
    assert "there is nothing to measure" in out


def test_a_file_that_is_no_recording_is_not_recorded_over(cli, write, tmp_path):
    shapes = write(MODEL + "batch_specs: [2q1s300]\n")
    before = shapes.read_bytes()
    code, _, err = cli(*options(tmp_path), "--shapes", shapes, "--record", shapes)
    assert code == 2
    assert "not a line of a recording" in err
    assert shapes.read_bytes() == before
    assert not (tmp_path / "study").exists()


def test_a_recording_that_a_kill_has_torn_is_played_back_and_says_so(cli, tmp_path):
    seed = Path(__file__).parents[1] / "data" / "seeds" / "recording-2.jsonl.gz"
    (tmp_path / "torn.gz").write_bytes(seed.read_bytes()[:-7])
    code, out, err = cli(
        *("--backend", "RECORDED", "--recording", tmp_path / "torn.gz", "--confirm-seconds", "0.1"),
        *("--out", tmp_path / "out", "--study-dir", tmp_path / "study"),
    )
    assert code == 0, err
    assert "cut off after line" in "".join((out + err).split("\n"))
