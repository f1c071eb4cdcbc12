"""`mla-tune retune` as an operator's script calls it."""

import shutil
from pathlib import Path

import pytest
from command_line import refused
from filelock import FileLock
from json_document import documented

import mla_tune
from mla_tune.table import TableFile

DATA = Path(__file__).parents[1] / "data"
RECORDED = DATA / "seeds" / "recording.jsonl"
OF_A_GPU = DATA / "h100" / "ragged_4k_triton_mla.jsonl.gz"


@pytest.fixture(scope="module")
def tuned_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    mla_tune.tune(backends="RECORDED", recording=RECORDED, out=folder, study_dir=folder / "s")
    return folder


@pytest.fixture
def tables(tuned_once, tmp_path):
    folder = tmp_path / "tables"
    shutil.copytree(tuned_once, folder, ignore=shutil.ignore_patterns("s"))
    return folder


@pytest.fixture
def retune(cli, tables, tmp_path):
    def call(*options):
        study = ("--study-dir", tmp_path / "study", "--recording", RECORDED)
        return cli("retune", tables, *study, *options)

    return call


def test_an_unchanged_folder_exits_0(retune, tables):
    code, out, err = retune()
    assert code == 0, err
    assert "as it was" in out
    assert len(list(tables.glob("*.history.jsonl"))) == 1


def test_a_program_gets_json_alone(retune):
    _, out, err = retune("--dry-run", "--json")
    assert documented("retune --dry-run", out)["seconds"] > 0
    code, out, err = retune("--json")
    assert code == 0, err
    (table,) = documented("retune", out)["tables"]
    assert table["status"] == "as it was"


def test_a_changed_table_exits_10(retune, tables):
    (path,) = tables.glob("*.yaml")
    path.write_text(path.read_text().replace("torch: 2.13.0", "torch: 2.12.1"))
    code, out, err = retune()
    assert code == 10, out + err
    assert "torch 2.12.1 → 2.13.0" in out
    assert TableFile.load(path).header.software["torch"] == "2.13.0"
    assert retune()[0] == 0


def test_a_dry_run_says_what_is_due_and_measures_nothing(retune, tables):
    code, out, err = retune("--dry-run")
    assert code == 0, err
    assert "sentinels; all in 2 nights" in out
    assert "recording" in out
    assert list(tables.glob("*.history.jsonl")) == []
    (path,) = tables.glob("*.yaml")
    path.write_text(path.read_text().replace("torch: 2.13.0", "torch: 2.12.1"))
    code, out, _ = retune("--dry-run", "--budget-gpu-minutes", "3")
    assert "tune: torch" in out
    assert "of which 3 min are allowed" in out


def test_a_broken_table_exits_1_and_the_others_are_looked_after(retune, tables):
    (tables / "broken.yaml").write_text("schema_version: 1\n")
    code, out, _ = retune()
    assert code == 1
    assert "broken" in out
    assert "as it was" in out


def test_two_nights_do_not_overlap(retune, tables):
    retune()
    (lock,) = tables.glob(".retune-*.lock")
    with FileLock(lock):
        code, _, err = retune()
    assert code == 2
    assert "another night is at work" in err


def test_what_cannot_be_looked_after_is_refused(cli, tables, tmp_path):
    study = ("--study-dir", tmp_path / "study", "--recording", RECORDED)
    assert "is no folder" in refused(cli, "retune", tmp_path / "absent", *study)
    several = refused(cli, "retune", tables, *study, "--devices", "0,1")
    assert "--recording and --devices cannot be given together" in several
    (tmp_path / "empty").mkdir()
    assert "has no tables" in refused(cli, "retune", tmp_path / "empty", *study)
    assert "no traffic histogram" in refused(
        cli, "retune", tables, *study, "--served", tmp_path / "absent"
    )


def test_a_table_that_cannot_be_measured_here_is_named_and_left(cli, tables, tmp_path):
    study = ("--study-dir", tmp_path / "study", "--recording", OF_A_GPU)
    code, out, err = cli("retune", tables, *study)
    assert code == 2
    assert "not here" in "".join(out.split("\n"))
    assert "can be measured here" in err
