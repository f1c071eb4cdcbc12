import os
import socket

import pytest

from mla_tune.errors import InputError
from mla_tune.files.regular_file import read_text


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_text(path, what="table", most_bytes=2**20)
    return caught.value.what


def test_a_fifo_that_nobody_writes_to_is_refused_at_once(tmp_path):
    path = tmp_path / "t.yaml"
    os.mkfifo(path)
    assert "is a FIFO and cannot be read" in refusal(path)


def test_devices_sockets_and_folders_are_refused(tmp_path, monkeypatch):
    assert "is a folder" in refusal(tmp_path)
    link = tmp_path / "zero.yaml"
    link.symlink_to("/dev/zero")
    assert "is a device" in refusal(link)
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s.yaml")
        assert "cannot be read" in refusal(tmp_path / "s.yaml")


def test_links_in_a_loop_and_impossible_names_are_refused(tmp_path):
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    assert "cannot be read" in refusal(loop)
    assert "cannot be read" in refusal(tmp_path / ("n" * 300))
    assert "cannot be read" in refusal(tmp_path / "a\0b")


def test_a_file_that_grows_while_it_is_read_is_still_bounded(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_bytes(b"x" * (2**20 + 1))
    assert "1048577 bytes" in refusal(path)
    path.write_bytes(b"x" * 2**20)
    assert len(read_text(path, what="table", most_bytes=2**20)) == 2**20
