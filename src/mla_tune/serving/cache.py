"""The cache of ``mla-tune serve``: tables and engines' descriptions in a folder that may be shared.

A slot of it holds the tables for one engine, with the journals that they are made from. Its name is
that of what was asked; whether a table is true for an engine is decided by its header alone, and
over all slots. The date of a slot's stamp is that of its last use.
"""

__all__ = ["Cache", "Slot", "default_cache"]

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mla_tune.errors import InputError
from mla_tune.files.atomic_write import write_atomically
from mla_tune.files.regular_file import read_text

STAMP = "last-used"
FAILED = "failed.json"
MOST_DESCRIPTION_BYTES = 2**20


def default_cache() -> Path:
    """The cache in the user's own cache folder.

    Raises:
        InputError: the user has no home folder, as in a container run under a bare number.
    """
    import platformdirs

    try:
        folder = platformdirs.user_cache_path("mla-tune") / "serve"
    except (RuntimeError, KeyError):  # neither HOME nor an entry in the list of users
        folder = Path("~")
    if not folder.is_absolute():
        raise InputError(
            "there is no home folder for the cache", remedy="name one with --cache, or set HOME"
        )
    return folder


@dataclass(frozen=True)
class Slot:
    """One folder of the cache: the tables of one engine, and their journals."""

    path: Path

    @property
    def study_dir(self) -> Path:
        return self.path / "studies"

    @property
    def tables(self) -> list[Path]:
        return sorted(self.path.glob("*.yaml"))

    @property
    def failed(self) -> list[str]:
        """The keys of batches that could not be tuned here, and are not tried at each start."""
        try:
            return list(json.loads((self.path / FAILED).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return []

    def keep_failed(self, shapes: Iterable[str]) -> None:
        """Keep more of them, where that can be written."""
        with contextlib.suppress(OSError):
            write_atomically(self.path / FAILED, json.dumps(sorted({*self.failed, *shapes})))

    @property
    def last_used_s(self) -> float:
        """Seconds since 1970."""
        stamp = self.path / STAMP
        return (stamp if stamp.exists() else self.path).stat().st_mtime

    @property
    def num_bytes(self) -> int:
        files = (path for path in self.path.rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files)

    def use(self) -> None:
        """Note that it is in use, where that can be written."""
        with contextlib.suppress(OSError):
            (self.path / STAMP).touch()

    @contextlib.contextmanager
    def alone(self, timeout_s: float) -> Iterator[bool]:
        """Hold the slot against other starts; False where another has it for so long.

        On a volume without locks all go on: tables are written whole, and merged.

        Raises:
            OSError: the slot cannot be made.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock", timeout=timeout_s)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        except NotImplementedError:
            yield True
            return
        try:
            yield True
        finally:
            lock.release()


@dataclass(frozen=True)
class Cache:
    """The cache in ``folder``, which need not exist."""

    folder: Path

    def __post_init__(self) -> None:
        if os.pathsep in str(self.folder):
            raise InputError(
                f"the cache {self.folder} has {os.pathsep!r} in its path",
                valid="a path that can stand in MLA_TUNE_TABLES",
            )

    def slot(self, name: str, asked: str) -> Slot:
        """The slot for what ``asked`` says in full, with ``name`` for people."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
        return Slot(self._tables / f"{plain}-{_digest(asked)}")

    def slots(self) -> list[Slot]:
        """Every slot, by name."""
        return [Slot(path) for path in sorted(self._tables.glob("*")) if path.is_dir()]

    def description(self, key: str) -> str | None:
        """What an earlier start was told for ``key``."""
        path = self._description_path(key)
        try:
            return read_text(path, what="description", most_bytes=MOST_DESCRIPTION_BYTES)
        except InputError:
            return None

    def keep_description(self, key: str, text: str) -> None:
        """Keep it for the next start, where that can be written."""
        path = self._description_path(key)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)

    def clean(self, older_than_s: float) -> tuple[list[Slot], list[Slot]]:
        """Remove what was not used for so long; returns the slots removed, and those in use.

        Raises:
            OSError: a slot cannot be removed.
        """
        before = time.time() - older_than_s
        removed: list[Slot] = []
        busy: list[Slot] = []
        for slot in self.slots():
            if slot.last_used_s > before:
                continue
            with slot.alone(timeout_s=0) as is_mine:
                if is_mine:
                    shutil.rmtree(slot.path)
                (removed if is_mine else busy).append(slot)
        for path in self._descriptions.glob("*.json"):
            if path.stat().st_mtime <= before:
                path.unlink(missing_ok=True)
        return removed, busy

    @property
    def _tables(self) -> Path:
        return self.folder / "tables"

    @property
    def _descriptions(self) -> Path:
        return self.folder / "engines"

    def _description_path(self, key: str) -> Path:
        return self._descriptions / f"{_digest(key)}.json"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]
