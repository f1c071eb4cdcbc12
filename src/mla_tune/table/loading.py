"""Which tables ``MLA_TUNE_TABLES`` names, and what is in them."""

__all__ = ["LoadedTable", "load_tables", "locate"]

import os
from dataclasses import dataclass, replace
from pathlib import Path

from mla_tune.errors import InputError
from mla_tune.files.document import MOST_BYTES
from mla_tune.printable import printable
from mla_tune.table import Table
from mla_tune.table.folders import BUNDLED, tables_in


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
        return replace(self, table=Table(self.table.header, entries, self.table.between))

    def __str__(self) -> str:
        return f"{printable(str(self.path))} ({len(self.table.entries)} entries, {self.mode} mode)"


def locate(part: str, named_by: str = "MLA_TUNE_TABLES names") -> tuple[list[Path], list[str]]:
    """Resolve a file, a folder (`tables_in`) or the word ``bundled`` to files; ``~`` is a home.

    Returns the files, and one line for each thing in a folder that was left out. Messages begin
    with ``named_by``.

    Raises:
        InputError: a path that does not exist or cannot be read, or a folder without a table.
    """
    try:
        path = _bundled() if part == BUNDLED else Path(part).expanduser()
        if path.is_dir():
            found, problems = tables_in(path)
            if found or problems:
                return found, problems
            raise InputError(f"{named_by} {part!r}, a folder without tables (*.yaml)")
        if path.exists():
            return [path], []
    except OSError as error:
        raise InputError(f"{named_by} {part!r}: {error.strerror}") from None
    except RuntimeError as error:  # of expanduser
        raise InputError(f"{named_by} {part!r}: {error}") from None
    raise InputError(
        f"{named_by} {part!r}, which does not exist",
        valid=f"a table, a folder of tables, or {BUNDLED!r}; several joined by {os.pathsep!r}",
    )


def _bundled() -> Path:
    """Where the shipped tables lie: beside the code in a wheel, in the checkout otherwise."""
    package = Path(__file__).parents[1]
    in_wheel = package / "tuned_configs"
    return in_wheel if in_wheel.is_dir() else package.parents[1] / "tuned_configs"


def load_tables(setting: str) -> tuple[list[LoadedTable], list[str]]:
    """Load every table that ``setting`` names; a bad one costs itself, not the others.

    Args:
        setting: files, folders and the word ``bundled``, joined by ``os.pathsep``.

    Returns:
        The tables, and one line for each thing that could not be used.
    """
    tables: list[LoadedTable] = []
    problems: list[str] = []
    left = MOST_BYTES
    for part in filter(None, setting.split(os.pathsep)):
        try:
            paths, left_out = locate(part)
        except InputError as error:
            problems.append(_one_line(error))
            continue
        problems += left_out
        for path in paths:
            size = _size(path)
            if left < size <= MOST_BYTES:
                problems.append(f"{path}: the tables before it fill {MOST_BYTES >> 20} MiB")
                continue
            try:
                tables.append(LoadedTable(path, Table.load(path)))
            except InputError as error:
                problems.append(_one_line(error))
            left -= size if size <= MOST_BYTES else 0
    return tables, problems


def _size(path: Path) -> int:
    """The bytes of a file; what is no file has none."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def _one_line(error: InputError) -> str:
    return "; ".join(str(error).splitlines())
