from dataclasses import replace

import pytest
from night_cases import GPU, SHAPES, FakeGpu, tune

from mla_tune.errors import UnavailableError
from mla_tune.nightly.history import history_path
from mla_tune.nightly.target import targets_in

FEW = SHAPES[:2]


def found_in(folder, site):
    notices: list[str] = []
    found, broken = targets_in(folder / "tables", [site], notices.append)
    assert broken == {}
    return found, notices


def test_an_unchanged_table_is_due_for_nothing(tmp_path):
    path = tune(FakeGpu(), tmp_path, shapes=FEW)
    ((target,), notices) = found_in(tmp_path, FakeGpu())
    assert (target.path, target.source, target.reasons, notices) == (path, path, (), [])


def test_changed_software_is_told_with_both_versions(tmp_path):
    tune(FakeGpu(), tmp_path, shapes=FEW)
    newer = replace(GPU, software={"torch": "2.12.0", "driver": "580.1", "triton": "9"})
    ((target,), _) = found_in(tmp_path, FakeGpu(environment=newer))
    # A table of TORCH_MLA does not depend on Triton.
    assert target.reasons == ("torch 2.11.0 → 2.12.0",)
    patched = replace(GPU, software={"torch": "2.11.1", "driver": "580.1"})
    ((target,), _) = found_in(tmp_path, FakeGpu(environment=patched))
    assert target.reasons == ()


def test_a_table_that_was_renamed_is_looked_after_under_its_name(tmp_path):
    path = tune(FakeGpu(), tmp_path, shapes=FEW)
    renamed = path.rename(path.with_name("ours.yaml"))
    ((target,), _) = found_in(tmp_path, FakeGpu())
    assert (target.path, target.reasons) == (renamed, ())


def test_tables_of_other_devices_are_no_work_where_there_is_an_own_one(tmp_path):
    other = replace(GPU, device_name="NVIDIA Other")
    tune(FakeGpu(), tmp_path, shapes=FEW)
    own = tune(FakeGpu(environment=other), tmp_path, shapes=FEW)
    ((target,), _) = found_in(tmp_path, FakeGpu(environment=other))
    assert (target.path, target.reasons) == (own, ())


def test_tables_in_folders_stay_there(tmp_path):
    path = tune(FakeGpu(), tmp_path, shapes=FEW)
    place = path.parent / "team" / path.name
    place.parent.mkdir()
    path.rename(place)
    other = replace(GPU, device_name="NVIDIA Other")
    ((target,), _) = found_in(tmp_path, FakeGpu(environment=other))
    assert target.path.parent == place.parent
    assert target.source == place


class NotHere(FakeGpu):
    def job(self, file, folder):
        del file, folder
        raise UnavailableError("TORCH_MLA needs something else")


def test_what_cannot_be_measured_here_is_told_and_left_out(tmp_path):
    path = tune(FakeGpu(), tmp_path, shapes=FEW)
    notices: list[str] = []
    with pytest.raises(UnavailableError, match=r"no table of .* can be measured here"):
        targets_in(path.parent, [NotHere()], notices.append)
    assert notices == [f"{path.name}: not here: TORCH_MLA needs something else"]


def test_a_table_or_a_history_that_cannot_be_read_is_broken(tmp_path):
    path = tune(FakeGpu(), tmp_path, shapes=FEW)
    (path.parent / "broken.yaml").write_text("schema_version: 1\n")
    found, broken = targets_in(path.parent, [FakeGpu()], print)
    assert [target.path for target in found] == [path]
    assert [each.name for each in broken] == ["broken.yaml"]
    history_path(path.parent, found[0].job.header).mkdir()
    found, broken = targets_in(path.parent, [FakeGpu()], print)
    assert (found, set(broken)) == ([], {path, path.parent / "broken.yaml"})


def test_a_damaged_line_of_a_history_is_told(tmp_path):
    path = tune(FakeGpu(), tmp_path, shapes=FEW)
    ((target,), _) = found_in(tmp_path, FakeGpu())
    history_path(path.parent, target.job.header).write_text("nonsense\n")
    ((target,), notices) = found_in(tmp_path, FakeGpu())
    assert "left out, not a reading" in notices[0]
