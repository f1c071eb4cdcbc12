"""Files that others may have put there: read only if they are plain files of a stated size, and
written whole or not at all.
"""

__all__ = [
    "file_stamp",
    "fresh_beside",
    "is_planted",
    "open_regular",
    "read_text",
    "write_atomically",
]

import errno
import os
import secrets
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


def fresh_beside(path: Path) -> tuple[int, Path]:
    """Create a file beside ``path`` to be renamed to it.

    Its name cannot be foreseen, so that nobody can have planted a link there.

    Raises:
        OSError: as of `os.open`.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(scratch, flags, 0o666), scratch


def write_atomically(path: Path, text: str) -> None:
    """Write beside, sync, rename: readers see the old file or the new one, never a part.

    A new file gets the mode that the umask leaves, one that is replaced keeps its own. A link is
    written through to the file that it names, which is how deployments keep a table in a
    repository; a link that somebody else put into a shared folder is refused.

    Raises:
        OSError: the disk is full, the folder cannot be written, or the link is somebody
            else's; ``path`` is untouched.
    """
    path = _target(path)
    handle, scratch = fresh_beside(path)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            if path.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode) & 0o777)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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


def is_planted(link: Path) -> bool:
    """Whether a link is neither ours nor of the owner of the folder that it lies in.

    That is Linux's own rule for sticky folders (protected_symlinks), kept in every folder.
    """
    return link.lstat().st_uid not in {os.geteuid(), _owner_of_folder(link)}


def _owner_of_folder(path: Path) -> int:
    return path.parent.stat().st_uid
