"""Which tables ``MLA_TUNE_TABLES`` names, and what is in them."""

__all__ = ["LoadedTable", "load_tables", "locate"]

import os
from dataclasses import dataclass, replace
from pathlib import Path

from mla_tune.errors import InputError
from mla_tune.printable import printable
from mla_tune.table import Table

BUNDLED = "bundled"


@dataclass(frozen=True)
class LoadedTable:
    """A table and the file it came from, for the log."""

    path: Path
    table: Table

    @property
    def mode(self) -> str:
        return self.table.header.engine.mode

    @property
    def num_unproven(self) -> int:
        """How many entries name a plan that never ran beside the default."""
        return sum(entry.unproven is not None for entry in self.table.entries)

    def with_unproven(self) -> "LoadedTable":
        """The same table, with its unproven plans as plans to apply."""
        entries = tuple(
            entry.model_copy(update={"plan": entry.unproven, "unproven": None})
            if entry.unproven is not None
            else entry
            for entry in self.table.entries
        )
        return replace(self, table=Table(self.table.header, entries))

    def __str__(self) -> str:
        return f"{printable(str(self.path))} ({len(self.table.entries)} entries, {self.mode} mode)"


def locate(setting: str) -> list[Path]:
    """Resolve files, folders and the word ``bundled``, joined by ``os.pathsep``, to files.

    Folders are searched at every depth for ``*.yaml`` and ``*.yml``, hidden ones left out:
    Kubernetes keeps the files of a mounted ConfigMap a second time under ``..data``.

    Raises:
        InputError: a path that does not exist or cannot be read, or a folder without a table.
    """
    return [path for part in setting.split(os.pathsep) if part for path in _files(part)]


def _files(part: str) -> list[Path]:
    path = _bundled() if part == BUNDLED else Path(part)
    try:
        if path.is_file():
            return [path]
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if _is_table(file.relative_to(path)))
            if found:
                return found
            raise InputError(f"MLA_TUNE_TABLES names {part!r}, a folder without tables (*.yaml)")
    except OSError as error:
        raise InputError(f"MLA_TUNE_TABLES names {part!r}: {error.strerror}") from None
    raise InputError(
        f"MLA_TUNE_TABLES names {part!r}, which does not exist",
        valid=f"a table, a folder of tables, or {BUNDLED!r}; several joined by {os.pathsep!r}",
    )


def _is_table(path: Path) -> bool:
    hidden = any(name.startswith(".") for name in path.parts)
    return path.suffix in {".yaml", ".yml"} and not hidden


def _bundled() -> Path:
    """Where the shipped tables lie: beside the code in a wheel, in the checkout otherwise."""
    package = Path(__file__).parents[1]
    in_wheel = package / "tuned_configs"
    return in_wheel if in_wheel.is_dir() else package.parents[1] / "tuned_configs"


def load_tables(setting: str) -> tuple[list[LoadedTable], list[str]]:
    """Load every table that ``setting`` names; a bad one costs itself, not the others.

    Returns the tables, and one line for each thing that could not be used.
    """
    tables: list[LoadedTable] = []
    problems: list[str] = []
    for part in setting.split(os.pathsep):
        try:
            paths = locate(part)
        except InputError as error:
            problems.append(_one_line(error))
            continue
        for path in paths:
            try:
                tables.append(LoadedTable(path, Table.load(path)))
            except InputError as error:
                problems.append(_one_line(error))
    return tables, problems


def _one_line(error: InputError) -> str:
    return "; ".join(str(error).splitlines())
