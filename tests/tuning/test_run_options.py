import pwd
from pathlib import Path

import pytest

from mla_tune.errors import InputError
from mla_tune.tuning.run_options import RunOptions


def test_studies_lie_where_they_survive_a_reboot_unless_told_otherwise(tmp_path):
    assert RunOptions(study_dir=tmp_path).study_folder == tmp_path
    assert RunOptions().study_folder.is_absolute()
    assert "mla-tune" in str(RunOptions().study_folder)


@pytest.fixture
def homeless(monkeypatch):
    """A user without HOME and without an entry in the list of users."""
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(_uid):
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folder_the_study_folder_has_to_be_named(tmp_path):
    with pytest.raises(InputError, match="no home folder") as caught:
        RunOptions().study_folder  # noqa: B018
    assert "--study-dir" in caught.value.remedy
    assert RunOptions(study_dir=tmp_path).study_folder == tmp_path


@pytest.mark.parametrize(
    ("option", "given"),
    [("--device", {"device": "cpu"}), ("--record", {"record": Path("x")}),
     ("--recording", {"recording": Path("x")})],
)  # fmt: skip
def test_several_devices_go_with_no_single_one_and_no_recording(option, given):
    with pytest.raises(InputError, match=f"{option} and --devices"):
        RunOptions(devices="all", **given)


def test_what_names_no_devices_is_refused():
    with pytest.raises(InputError, match="--devices 'x'"):
        RunOptions(devices="x")


@pytest.mark.parametrize("given", [{"devices": "0,1"}, {"recording": Path("x")}])
def test_a_cluster_goes_with_no_other_devices_and_no_recording(given):
    with pytest.raises(InputError, match="and --ray"):
        RunOptions(ray="auto", **given)
    assert RunOptions(ray="auto", device="cpu").ray == "auto"


def test_studies_are_in_a_database_where_storage_is_a_url_and_in_a_folder_else(tmp_path):
    options = RunOptions(storage="postgresql://me:secret@db/mla", study_dir=tmp_path)
    assert options.database == "postgresql://me:secret@db/mla"
    assert options.study_folder == tmp_path
    assert options.kept_in == "postgresql+psycopg://me:***@db/mla"
    folder = RunOptions(storage=str(tmp_path))
    assert (folder.database, folder.study_folder) == (None, tmp_path)
    assert folder.kept_in == str(tmp_path)


@pytest.mark.parametrize(
    ("given", "problem"),
    [({"storage": "mysql://x/y"}, "mysql"), ({"storage": ""}, "empty"),
     ({"storage": "a", "study_dir": Path("b")}, "two folders"),
     ({"storage": "sqlite:///x", "record": Path("r")}, "--record and a database")],
)  # fmt: skip
def test_what_can_keep_no_studies_is_refused(given, problem):
    with pytest.raises(InputError, match=problem):
        RunOptions(**given)


def test_a_part_of_a_run_has_studies_of_its_own(tmp_path):
    assert RunOptions(units="2/8", study_dir=tmp_path).study_folder == tmp_path / "units-2-of-8"
    with pytest.raises(InputError, match="--units is '8/2'"):
        RunOptions(units="8/2")
    with pytest.raises(InputError, match="--units and a database"):
        RunOptions(units="1/2", storage="postgresql://db/mla")


@pytest.mark.parametrize(
    ("given", "problem"),
    [({"guard": "most"}, "guard is 'most'"), ({"guard": "served"}, "needs a record"),
     ({"served": Path("s")}, "--served is given without --guard served"),
     ({"guard_share": 0.01}, "--guard-share is given without"),
     ({"guard": "served", "served": Path("s"), "guard_share": 0.5}, "guard_share is 0.5"),
     ({"guard": "served", "served": Path("s"), "recording": Path("r")}, "--recording")],
)  # fmt: skip
def test_guards_by_what_was_served_need_a_record_and_nothing_else_does(given, problem):
    with pytest.raises(InputError, match=problem):
        RunOptions(**given)
