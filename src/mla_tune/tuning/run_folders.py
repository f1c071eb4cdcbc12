"""The folders that a run writes to, looked at before anything is measured."""

__all__ = [
    "check_output",
    "check_study_folder",
    "check_without_making",
    "shipped_folder_notice",
    "worker_log",
]

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mla_tune.errors import InputError
from mla_tune.files.own_file import open_own


def shipped_folder_notice(folder: Path) -> str | None:
    """What to say to someone whose tables are about to stand among those that this project ships.

    The default ``--out`` is right in a deployment's repository, and wrong in a clone of this one.
    """
    folder = folder.resolve()
    for root in (folder, *folder.parents):
        own = (root / "tuned_configs", root / "src")
        if (root / "src" / "mla_tune" / "__init__.py").is_file() and any(
            folder.is_relative_to(path) for path in own
        ):
            return (
                f"{folder} is this project's own folder: what a run writes there stands among the "
                "tables that it ships; name another with --out, such as --out build/tables"
            )
    return None


def check_output(folder: Path) -> None:
    """Make sure that tables can be written to ``folder``, before anything is measured.

    Raises:
        InputError: the folder cannot be made or written.
    """
    with _refused(f"output folder {folder} cannot be written", "--out"):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def check_study_folder(folder: Path) -> None:
    """Make the folder of journals and quarantine.

    Raises:
        InputError: it cannot be made.
    """
    with _refused(f"study folder {folder} cannot be made", "--study-dir"):
        folder.mkdir(parents=True, exist_ok=True)


def check_without_making(folder: Path, option: str) -> None:
    """Make sure that ``folder``, which ``option`` names, is one or could be made.

    Raises:
        InputError: what stands there is no folder, or cannot be written.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    with _refused(f"folder {folder} cannot be written", option):
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{there} is no folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def worker_log(folder: Path, name: str = "worker.log") -> Path:
    """The file in the study folder that takes what a worker prints.

    Raises:
        InputError: it cannot be written.
    """
    check_study_folder(folder)
    log = folder / name
    with _refused(f"study folder {folder} cannot be written", "--study-dir"):
        os.close(open_own(log, os.O_WRONLY))
    return log


@contextmanager
def _refused(what: str, option: str) -> Iterator[None]:
    """Refuse a folder, which ``option`` names, on any error of the system."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{what}: {error.strerror or error}", remedy=f"choose another with {option}"
        ) from None
