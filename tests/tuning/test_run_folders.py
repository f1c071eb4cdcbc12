from pathlib import Path

import pytest

from mla_tune.errors import InputError
from mla_tune.tuning.run_folders import (
    check_output,
    check_without_making,
    shipped_folder_notice,
    worker_log,
)


def test_the_output_folder_is_made(tmp_path):
    check_output(tmp_path / "out" / "tables")
    assert (tmp_path / "out" / "tables").is_dir()


def test_an_output_folder_that_cannot_be_made_is_refused():
    with pytest.raises(InputError, match="output folder /dev/null/x cannot be written"):
        check_output(Path("/dev/null/x"))


@pytest.mark.parametrize(
    ("out", "is_own"),
    [
        ("tuned_configs", True),
        ("tuned_configs/night", True),
        ("src/mla_tune/tuned_configs", True),
        ("build/tables", False),
        ("../deployment/tuned_configs", False),
    ],
)
def test_a_run_about_to_write_among_the_shipped_tables_says_so(tmp_path, monkeypatch, out, is_own):
    clone = tmp_path / "clone"
    (clone / "src" / "mla_tune").mkdir(parents=True)
    (clone / "src" / "mla_tune" / "__init__.py").touch()
    monkeypatch.chdir(clone)
    notice = shipped_folder_notice(Path(out))
    assert (notice is not None) is is_own
    assert notice is None or "--out build/tables" in notice


def test_a_link_planted_at_the_workers_log_is_not_followed(tmp_path, monkeypatch):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "worker.log").symlink_to(precious)
    monkeypatch.setattr("os.geteuid", lambda: 4242)
    monkeypatch.setattr("mla_tune.files.planted_links._owner_of_folder", lambda _link: 4243)
    with pytest.raises(InputError, match=r"worker\.log is a link"):
        worker_log(tmp_path)
    assert precious.read_text() == "mine"


def test_a_folder_is_looked_at_without_making_it(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    check_without_making(tmp_path / "out" / "tables", "--out")
    for name in ("file", "file/tables", "loop", "loop/tables"):
        with pytest.raises(InputError, match=r"is no folder[^$]*choose another with --out"):
            check_without_making(tmp_path / name, "--out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]
