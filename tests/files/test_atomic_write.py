import errno
import os
import stat

import pytest

from mla_tune.files import planted_links
from mla_tune.files.atomic_write import write_atomically


@pytest.fixture(params=[0o022, 0o002, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_new_file_has_the_mode_that_the_umask_leaves_and_keeps_it(tmp_path, umask):
    path = tmp_path / "t.yaml"
    write_atomically(path, "one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    path.chmod(0o640)
    write_atomically(path, "two")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_text() == "two"


def test_a_link_of_ours_is_written_through(tmp_path):
    real, link = tmp_path / "real.yaml", tmp_path / "t.yaml"
    link.symlink_to("real.yaml")
    write_atomically(link, "first")
    write_atomically(link, "second")
    assert link.is_symlink()
    assert real.read_text() == "second"


def test_a_link_that_another_user_planted_is_refused(tmp_path, monkeypatch):
    victim, link = tmp_path / "victim", tmp_path / "shared" / "t.yaml"
    victim.write_text("mine")
    link.parent.mkdir()
    link.symlink_to(victim)
    # Whoever owns the link and the folder, it is now neither this user nor the same one.
    owner = link.lstat().st_uid
    monkeypatch.setattr(planted_links.os, "geteuid", lambda: owner + 1)
    monkeypatch.setattr(planted_links, "_owner_of_folder", lambda _path: owner + 1)
    with pytest.raises(PermissionError, match=f"a link that user {owner} put there"):
        write_atomically(link, "theirs")
    assert victim.read_text() == "mine"
    assert list(link.parent.iterdir()) == [link]


def test_a_loop_of_links_is_an_error(tmp_path):
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number says which
        write_atomically(loop, "x")
    assert caught.value.errno == errno.ELOOP


@pytest.mark.parametrize("call", ["open", "fdopen", "fsync"])
def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, call):
    path = tmp_path / "t.yaml"
    write_atomically(path, "old")

    def full(*_arguments, **_named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_or_a_device_is_never_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # as /dev/null is, something that only its maker can put back
    link = tmp_path / "link"
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(OSError, match="no regular file"):
            write_atomically(path, "text")
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert sorted(tmp_path.iterdir()) == [link, pipe]
