"""Reading a path that may name anything: only a plain file of a bounded size is read."""

__all__ = ["file_stamp", "open_regular", "read_text"]

import os
import stat
from pathlib import Path
from typing import BinaryIO

from mla_tune.errors import InputError


def read_text(path: Path, *, what: str, most_bytes: int) -> str:
    """The UTF-8 text of a regular file, with its line ends as they are.

    Never waits: a FIFO without a writer would otherwise hold the start of an engine up for ever.

    Args:
        path: the file, or a link to it.
        what: names the kind of file in messages ("table").
        most_bytes: the largest file that is read.

    Raises:
        InputError: missing, unreadable, no regular file, too large, or not UTF-8.
    """
    try:
        # One byte more than allowed, in case the file grows while it is read.
        with open_regular(path, what=what) as file:
            found = os.fstat(file.fileno())
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error}") from None
    if len(content) > most_bytes:
        raise InputError(
            f"{what} {path} has {max(found.st_size, len(content))} bytes",
            valid=f"at most {most_bytes} bytes ({most_bytes // 2**20} MiB)",
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} cannot be read: {error}") from None


def open_regular(path: Path, *, what: str) -> BinaryIO:
    """Open a regular file, or a link to one, to read its bytes. Never waits; see `read_text`.

    Raises:
        InputError: missing, unreadable, or no regular file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputError(f"{what} {path} does not exist", remedy="check the path") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{what} {path} cannot be read: {error}") from None
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise InputError(
            f"{what} {path} is {_kind(mode)} and cannot be read",
            valid="a regular file, or a link to one",
        )
    return os.fdopen(handle, "rb")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "no regular file")


def file_stamp(path: Path) -> tuple[int, ...] | None:
    """What tells that a file has changed; None where there is none.

    Raises:
        OSError: it cannot be looked at.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
