"""The tables in a folder, looked for within bounds: an engine waits for it at its start."""

__all__ = ["BUNDLED", "tables_in"]

import os
from collections.abc import Iterator
from pathlib import Path

BUNDLED = "bundled"
"""The word that stands for the folder of the shipped tables."""

MOST_TABLES = 1_000
MOST_SEEN = 20_000
MOST_DEPTH = 8


def tables_in(folder: Path) -> tuple[list[Path], list[str]]:
    """Every ``*.yaml`` and ``*.yml`` below ``folder``, sorted, and a line for each thing left out.

    Hidden files and folders are left out: Kubernetes keeps the files of a mounted ConfigMap a
    second time under ``..data``. A folder that several links lead to, or a loop of them, is entered
    once. An unreadable folder costs what is in it.
    """
    search = _Search()
    found = sorted(search.below(folder, 0))
    if len(found) > MOST_TABLES:
        left_out = f"{folder} holds {len(found)} tables; only the first {MOST_TABLES} are read"
        search.problems.append(left_out)
    return found[:MOST_TABLES], search.problems


class _Search:
    def __init__(self) -> None:
        self.problems: list[str] = []
        self._entered: set[tuple[int, int]] = set()
        self._seen = 0

    def below(self, folder: Path, depth: int) -> Iterator[Path]:
        """The tables in ``folder`` and its folders."""
        try:
            found = folder.stat()
            if (found.st_dev, found.st_ino) in self._entered:
                return
            self._entered.add((found.st_dev, found.st_ino))
            # Real folders before links to them, so that each table has its own path where it can.
            entries = sorted(self._visible(folder), key=lambda entry: entry.is_symlink())
        except OSError as error:
            self.problems.append(f"{folder} cannot be read: {error.strerror}")
            return
        for entry in entries:
            path = folder / entry.name
            if not self._is_folder(entry):
                if path.suffix in {".yaml", ".yml"}:
                    yield path
            elif depth < MOST_DEPTH:
                yield from self.below(path, depth + 1)
            else:
                self.problems.append(f"{path} is more than {MOST_DEPTH} folders deep; not searched")

    def _visible(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        with os.scandir(folder) as entries:
            for entry in entries:
                self._seen += 1
                if self._seen > MOST_SEEN:
                    if self._seen == MOST_SEEN + 1:
                        told = f"after {MOST_SEEN} files the search ends; the rest is left out"
                        self.problems.append(f"{folder}: {told}")
                    return
                if not entry.name.startswith("."):
                    yield entry

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError:  # a loop of links; as a file it is refused with its reason
            return False
