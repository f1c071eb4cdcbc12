import os
import signal
import stat
import subprocess
import sys
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.device.lock import FOLDER_VARIABLE, Holder, device_lock, lock_folder

HOLDING = """
import sys
from pathlib import Path
from mla_tune.device.lock import device_lock

def never(*what):
    raise AssertionError(what)

with device_lock(sys.argv[1], Path(sys.argv[2]), never, never):
    print("held", flush=True)
    sys.stdin.read()
"""


class Busy(Exception):
    pass


def refuse(holder):
    raise Busy(holder)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "locks"


@pytest.fixture
def notices():
    return []


@pytest.fixture
def lock(folder, notices):
    def of(identity="GPU-1", busy=refuse):
        return device_lock(identity, folder, busy, notices.append)

    return of


@pytest.fixture
def other(folder):
    """Another process that holds a device."""
    command = [sys.executable, "-c", HOLDING, "GPU-1", str(folder)]
    run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "held\n"
    yield run
    run.kill()
    run.wait()
    run.stdout.close()
    run.stdin.close()


def test_a_device_is_held_by_one_process_which_is_named(lock, other):
    with pytest.raises(Busy) as caught, lock():
        pass
    (holder,) = caught.value.args
    assert holder.pid == other.pid
    assert "GPU-1" in holder.command
    assert str(holder).startswith(f"process {other.pid} on {os.uname().nodename}, since 2")


def test_a_killed_holder_holds_nothing(lock, other):
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    with lock():
        pass


def test_who_waits_gets_the_device_when_it_is_free(lock, other):
    seen = []

    def wait(holder):
        seen.append(holder.pid)
        other.stdin.close()  # lets it end

    with lock(busy=wait):
        assert other.wait(timeout=20) == 0
    assert seen == [other.pid]


def test_another_device_is_free(lock, other):
    del other
    with lock("GPU-2"):
        pass


def test_all_users_can_lock_and_none_can_remove_anothers_file(lock, folder):
    before = os.umask(0o077)
    try:
        with lock():
            assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
            assert stat.S_IMODE((folder / "GPU-1.lock").stat().st_mode) == 0o666
    finally:
        os.umask(before)


def planted_folder(folder):
    (folder.parent / "elsewhere").mkdir()
    folder.symlink_to(folder.parent / "elsewhere")


def planted_link(folder):
    folder.mkdir()
    (folder / "GPU-1.lock").symlink_to(folder.parent / "victim")


def planted_second_name(folder):
    folder.mkdir()
    (folder / "GPU-1.lock").hardlink_to(folder.parent / "victim")


def planted_fifo(folder):
    folder.mkdir()
    os.mkfifo(folder / "GPU-1.lock")


def a_file(folder):
    folder.write_text("")


@pytest.mark.parametrize(
    "plant", [planted_folder, planted_link, planted_second_name, planted_fifo, a_file]
)
def test_where_there_can_be_no_lock_a_run_says_so_and_goes_on(lock, folder, notices, plant):
    victim = folder.parent / "victim"
    victim.write_text("precious")
    plant(folder)
    with lock():
        pass
    (notice,) = notices
    assert str(folder) in notice
    assert FOLDER_VARIABLE in notice
    assert victim.read_text() == "precious"
    assert list(folder.parent.glob("elsewhere/*")) == []


def test_an_error_of_the_run_frees_the_device(lock):
    with pytest.raises(KeyError), lock():
        raise KeyError
    with lock():
        pass


def test_a_name_of_a_device_is_a_name_of_one_file(lock, folder):
    with ExitStack() as held:
        held.enter_context(lock("../GPU 1/x"))
        held.enter_context(lock("GPU-2"))
        assert {path.name for path in folder.iterdir()} == {".._GPU_1_x.lock", "GPU-2.lock"}


@given(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode)))
def test_what_others_wrote_never_hurts(text):
    assert str(Holder.written(text)).isprintable()


def test_what_others_wrote_is_shown_as_data():
    text = b'{"pid": 7, "host": "h\\u001b[2J", "since": "2026", "command": "a\\nb"}'
    assert str(Holder.written(text)) == "process 7 on h?[2J, since 2026 (a?b)"


def test_the_folder_is_one_for_all_users_unless_named():
    assert (
        lock_folder({"TMPDIR": "/elsewhere"})
        == lock_folder({})
        != lock_folder({FOLDER_VARIABLE: "/shared"})
    )


def test_no_password_of_a_database_is_told_to_all_users_of_the_host(monkeypatch):
    given = ["/usr/bin/mla-tune", "--storage", "postgresql://me:secret@db:5432/mla", "--wait"]
    monkeypatch.setattr("sys.argv", given)
    told = Holder.here().command
    assert "secret" not in told
    assert "postgresql://me:***@db:5432/mla" in told
