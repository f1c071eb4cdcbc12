from dataclasses import replace

import pytest
from night_cases import GPU, SHAPES, FakeGpu, tune

from fake_device import splits
from mla_tune.errors import EnvironmentFailure
from mla_tune.nightly.staging import Staging
from mla_tune.nightly.target import targets_in
from mla_tune.table import TableFile, merge

FEW = SHAPES[:2]


def staging(folder, digest="d1", environment=GPU) -> Staging:
    ((target,), _) = targets_in(folder / "tables", [FakeGpu(environment=environment)], print)
    return Staging(folder / "study", target, digest)


@pytest.fixture
def folder(tmp_path):
    tune(FakeGpu(), tmp_path, shapes=FEW)
    (tmp_path / "study").mkdir()
    return tmp_path


def test_it_begins_with_the_table_and_the_quarantine_of_the_user(folder):
    made = staging(folder)
    assert not made.has_begun
    job = made.begun()
    assert job.path == made.path
    assert made.path.read_bytes() == made.target.path.read_bytes()
    (made.study_folder / "quarantine.yaml").write_text("quarantine:\n")
    assert (folder / "study" / "quarantine.yaml").read_text() == "quarantine:\n"


def test_what_was_begun_is_gone_on_with(folder):
    made = staging(folder)
    made.begun()
    made.path.write_text("half done")
    assert staging(folder).has_begun
    staging(folder).begun()
    assert made.path.read_text() == "half done"


def test_what_was_begun_for_other_software_is_dropped(folder):
    staging(folder).begun()
    staging(folder, "d2").begun()
    assert not staging(folder).has_begun
    assert staging(folder, "d2").has_begun


def test_entries_that_others_put_into_the_table_meanwhile_stay(folder):
    made = staging(folder)
    made.begun()
    file = made.target.file
    other = file.entries[0].model_copy(update={"shape": "64q1s1k"})
    merge(made.target.path, file.header, [other])
    new = file.entries[0].model_copy(update={"plan": splits(8)})
    merge(made.path, file.header, [new])
    published = {entry.shape: entry for entry in made.publish().entries}
    assert set(published) == {*FEW, "64q1s1k"}
    assert published[FEW[0]].plan == splits(8)
    assert not made.has_begun


def test_a_table_for_other_software_takes_the_place_of_the_old(folder):
    newer = replace(GPU, software=GPU.software | {"driver": "590.1"})
    made = staging(folder, environment=newer)
    job = made.begun()
    made.path.unlink()
    merge(made.path, job.header, made.target.file.entries[:1])
    made.publish()
    table = TableFile.load(made.target.path)
    assert table.header.software["driver"] == "590.1"
    assert [entry.shape for entry in table.entries] == [FEW[0]]


def test_a_study_folder_that_is_none_is_named(folder):
    (folder / "study" / "retune").write_text("")
    with pytest.raises(EnvironmentFailure, match="cannot be written"):
        staging(folder).begun()
