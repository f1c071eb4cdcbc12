"""One measuring run a device, whatever the study folders: a lock that all users of a host see.

The lock is flock(2) on a file named after the device, so it ends with its process, also by SIGKILL.
Containers that share a device share the lock where they mount one folder and name it in
``MLA_TUNE_LOCK_DIR``.
"""

__all__ = ["FOLDER_VARIABLE", "Holder", "device_lock", "lock_folder"]

import contextlib
import fcntl
import json
import os
import platform
import re
import shlex
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

FOLDER_VARIABLE = "MLA_TUNE_LOCK_DIR"
# Not the user's own temporary folder: every user of the host has to find the same one.
DEFAULT_FOLDER = Path("/tmp/mla-tune-locks")
LONGEST_COMMAND = 300


@dataclass(frozen=True)
class Holder:
    """Who has a device: as they wrote it into the lock's file, which other users can write too."""

    pid: int = 0
    host: str = ""
    since: str = ""
    command: str = ""

    @classmethod
    def here(cls) -> "Holder":
        """Describe this process."""
        command = shlex.join([Path(sys.argv[0]).name, *map(_without_password, sys.argv[1:])])
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        return cls(os.getpid(), platform.node(), since, command[:LONGEST_COMMAND])

    @classmethod
    def written(cls, text: bytes) -> "Holder":
        """What a file says; nothing where it says nothing that can be read."""
        try:
            found = json.loads(text)
            return cls(int(found["pid"]), *(_shown(found[n]) for n in ("host", "since", "command")))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return cls()

    def __str__(self) -> str:
        if not self.pid:
            return "a process that left no name"
        return f"process {self.pid} on {self.host}, since {self.since} ({self.command})"


def _without_password(argument: str) -> str:
    """An argument as all users of the host may read it: of a URL without its password."""
    return re.sub(r"(://[^/:@]*):[^@]*@", r"\1:***@", argument)


def _shown(text: object) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(text)[:LONGEST_COMMAND])


def lock_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the locks: one for all users of the host, unless told otherwise."""
    return Path(environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)


@contextlib.contextmanager
def device_lock(
    identity: str, folder: Path, busy: Callable[[Holder], None], notice: Callable[[str], None]
) -> Iterator[None]:
    """Hold the device called ``identity``.

    Args:
        identity: a name that is the same for all who share the device.
        folder: where the locks are; see `lock_folder`.
        busy: told who holds the device. Returns to wait for it, or raises.
        notice: told once when there can be no lock here; the run goes on without.
    """
    with contextlib.ExitStack() as held:
        try:
            file = _opened(folder, re.sub(r"[^A-Za-z0-9._-]+", "_", identity) + ".lock")
            held.callback(os.close, file)
            _locked(file, busy)
        except OSError as error:
            # Among others a network file system without locks.
            notice(_no_lock(folder, error))
        else:
            _write(file, json.dumps(asdict(Holder.here())).encode())
            held.callback(_write, file, b"")
        yield


def _no_lock(folder: Path, error: OSError) -> str:
    return (
        f"no lock in {folder} ({error.strerror or error}): another run on this device would "
        f"disturb this one unseen. {FOLDER_VARIABLE} names another folder"
    )


def _locked(file: int, busy: Callable[[Holder], None]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        busy(Holder.written(os.pread(file, 4096, 0)))
        fcntl.flock(file, fcntl.LOCK_EX)


def _write(file: int, content: bytes) -> None:
    """Say who holds the lock; on a full disk or in another's file the lock counts all the same."""
    with contextlib.suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, content, 0)


def _opened(folder: Path, name: str) -> int:
    """Open or make the file of a lock, through no link that another user may have planted."""
    at = _opened_folder(folder)
    try:
        file = _opened_file(at, name)
    finally:
        os.close(at)
    found = os.fstat(file)
    # A second name of some other file of ours, a FIFO or a device: not to be written to.
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(file)
        raise OSError(f"{name} is not a plain file")
    return file


def _opened_folder(folder: Path) -> int:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    os.fchmod(at, 0o1777)  # all may lock, whatever the umask; none may remove another's file
    return at


def _opened_file(at: int, name: str) -> int:
    flags = os.O_NOFOLLOW | os.O_NONBLOCK
    for _ in range(2):
        # Without O_CREAT, which fs.protected_regular refuses for the files of other users.
        with contextlib.suppress(FileNotFoundError):
            try:
                return os.open(name, os.O_RDWR | flags, dir_fd=at)
            except PermissionError:
                return os.open(name, os.O_RDONLY | flags, dir_fd=at)  # enough for flock
        with contextlib.suppress(FileExistsError):
            file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o666, dir_fd=at)
            os.fchmod(file, 0o666)
            return file
    raise OSError(f"{name} comes and goes")
