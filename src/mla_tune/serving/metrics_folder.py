"""The folder in which the processes of an engine leave what they count, for vLLM's ``/metrics``.

A folder serves one start: prometheus_client adds up all files that it finds in it. After the exec
nothing of ours runs to remove it, so the next start does. The engine holds a lock on its folder
through a file descriptor that it inherits; the kernel lets go of it when the engine is gone,
however it ended, and whichever container it ran in.
"""

__all__ = ["VARIABLE", "inherited_folder"]

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
PREFIX = "mla-tune-metrics-"


def inherited_folder() -> Path:
    """Make an empty folder for the program that this process becomes.

    It is the user's alone, and locked until that program ends. Those of engines that have ended go.

    Raises:
        OSError: it cannot be made or locked.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    # Under another name until it is locked: a start beside this one takes it for abandoned.
    made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
    try:
        lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(lock, True)
        return made.rename(made.with_name(made.name.removeprefix(".")))
    except OSError:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        # Of other users, or removed by another start meanwhile.
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid != os.geteuid():
                    continue
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
