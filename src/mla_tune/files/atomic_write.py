"""Writing a file whole or not at all: readers see the old file or the new one, never a part."""

__all__ = ["fresh_beside", "replacing", "write_atomically"]

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from mla_tune.files.planted_links import is_planted


def fresh_beside(path: Path) -> tuple[int, Path]:
    """Create a file beside ``path`` to be renamed to it.

    Its name cannot be foreseen, so that nobody can have planted a link there.

    Raises:
        OSError: as of `os.open`.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(scratch, flags, 0o666), scratch


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Yield a new UTF-8 file; once it is written and synced it replaces ``path``.

    Line ends are written as they are. On any error ``path`` is untouched and the new file is gone.

    Raises:
        OSError: the disk is full, the folder cannot be written, or ``path`` is a device, a pipe
            or a socket.
    """
    _refuse_device(path)
    handle, scratch = fresh_beside(path)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, text: str) -> None:
    """Write beside, sync, rename, and sync the folder.

    A new file gets the mode that the umask leaves, one that is replaced keeps its own. A link is
    written through to the file that it names, which is how deployments keep a table in a
    repository; a link that somebody else put into a shared folder is refused.

    Raises:
        OSError: the disk is full, the folder cannot be written, the link is somebody else's, or
            it names a device, a pipe or a socket; ``path`` is untouched.
    """
    path = _target(path)
    with replacing(path) as file:
        if path.exists():
            os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode) & 0o777)
        file.write(text)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _refuse_device(path: Path) -> None:
    """Root may rename over ``/dev/null``, and then everybody's writes to it fill a disk."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


MOST_LINKS = 40  # as many as Linux follows


def _target(path: Path) -> Path:
    """The file that ``path`` names through links that nobody has planted."""
    for _ in range(MOST_LINKS):
        if not path.is_symlink():
            return path
        if is_planted(path):
            raise PermissionError(
                errno.EACCES,
                f"it is a link that user {path.lstat().st_uid} put there",
                str(path),
            )
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
