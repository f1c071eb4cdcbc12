"""Files that a run writes in folders which it may share with other users."""

__all__ = ["append_whole", "kept_beside", "open_own", "write_whole"]

import contextlib
import errno
import itertools
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from mla_tune.errors import InputError
from mla_tune.files.planted_links import is_planted


def open_own(path: Path, flags: int) -> int:
    """Open the regular file ``path`` for writing, and create it if it is not there.

    The last part of the path may not be a link that someone else has planted there (see
    `is_planted`): it could lead to any file of ours. Links of the user's own, and of the owner of
    the folder, are followed. The mode of a new file is the umask's.

    Args:
        path: what to open.
        flags: as of `os.open`; ``O_CREAT`` is added.

    Returns:
        The file descriptor, which children do not inherit.

    Raises:
        InputError: such a link, or something that is no regular file (a folder, a FIFO).
        OSError: as of `os.open`.
    """
    # O_NONBLOCK: or opening a FIFO waits for its reader.
    flags |= os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            _refuse_irregular(path)
            raise
        if is_planted(path):
            raise InputError(
                f"{path} is a link that user {path.lstat().st_uid} put there",
                valid="a regular file, or a link of your own",
                remedy="remove the link, or choose another path",
            ) from None
        handle = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        _refuse_irregular(path)
    return handle


def _refuse_irregular(path: Path) -> None:
    """Say what ``path`` is where opening it fails for that; nothing where it is a file."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a regular file", remedy="choose another path") from None


def kept_beside(path: Path) -> Path:
    """Give a damaged file a second name beside ``path``, which no earlier one has.

    Raises:
        OSError: as of `os.link`, or the disk is full where there are no hard links.
    """
    for number in itertools.count(1):
        aside = path.with_name(f"{path.name}.damaged-{number}")
        try:
            os.link(path, aside)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            with path.open("rb") as damaged, aside.open("xb") as kept:  # no hard links here
                shutil.copyfileobj(damaged, kept)
        return aside
    raise AssertionError("there is always another number")


def append_whole(path: Path, text: str) -> None:
    """Append ``text`` to a file and sync it, or leave the file as it was.

    Raises:
        InputError: as of `open_own`.
        OSError: the disk is full.
    """
    handle = open_own(path, os.O_WRONLY | os.O_APPEND)
    try:
        with _all_or_nothing(handle):
            write_whole(handle, text.encode())
            os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(handle: int, data: bytes) -> None:
    """Append ``data`` to an open file, or nothing of it where there is no room.

    Raises:
        OSError: the disk is full.
    """
    with _all_or_nothing(handle):
        while data:
            data = data[os.write(handle, data) :]


@contextlib.contextmanager
def _all_or_nothing(handle: int) -> Iterator[None]:
    size = os.fstat(handle).st_size
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, size)
        raise
