"""Files in folders that other users can write to."""

import os
from pathlib import Path

import pytest

from mla_tune.errors import InputError
from mla_tune.files.atomic_write import fresh_beside
from mla_tune.files.own_file import open_own


def test_a_new_file_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        os.close(open_own(tmp_path / "log", os.O_WRONLY))
        handle, scratch = fresh_beside(tmp_path / "served.json")
        os.close(handle)
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "log", scratch)] == [0o640] * 2


def test_a_link_of_ones_own_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    handle = open_own(tmp_path / "link", os.O_WRONLY)
    os.write(handle, b"text")
    os.close(handle)
    assert (tmp_path / "elsewhere").read_bytes() == b"text"


def test_a_link_that_someone_else_has_planted_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / "link").symlink_to(victim)
    # Whoever runs the tests cannot make a link of another user's, but can be another user.
    monkeypatch.setattr("os.geteuid", lambda: 4242)
    monkeypatch.setattr("mla_tune.files.planted_links._owner_of_folder", lambda _link: 4243)
    with pytest.raises(InputError, match="is a link that user"):
        open_own(tmp_path / "link", os.O_WRONLY | os.O_TRUNC)
    assert victim.read_text() == "kept"


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/null")):
        for flags in (os.O_WRONLY, os.O_RDWR):
            with pytest.raises(InputError, match="is not a regular file"):
                open_own(path, flags)


def test_scratch_files_are_never_two_of_one_name(tmp_path: Path) -> None:
    handles, scratches = zip(*(fresh_beside(tmp_path / "a") for _ in range(2)), strict=True)
    for handle in handles:
        os.close(handle)
    assert len(set(scratches)) == 2
    assert {scratch.parent for scratch in scratches} == {tmp_path}
