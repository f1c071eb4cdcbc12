"""Tables by the files, folders and words that a person gives."""

__all__ = ["FoundTable", "found_tables"]

from collections.abc import Iterable
from dataclasses import dataclass
from os.path import realpath  # Path.resolve raises for a loop of links
from pathlib import Path
from typing import TYPE_CHECKING

from mla_tune.errors import InputError
from mla_tune.table import TableFile
from mla_tune.table.folders import BUNDLED

if TYPE_CHECKING:
    from mla_tune.table import Table


@dataclass(frozen=True)
class FoundTable:
    """A table and where it lies.

    Attributes:
        path: of its file.
        file: what stands in it.
        source: who knows of it: ``given``, ``shipped``, ``cached`` or ``MLA_TUNE_TABLES``.
    """

    path: Path
    file: TableFile
    source: str = "given"

    def table(self) -> "Table":
        """For lookups."""
        from mla_tune.table import Table

        return Table(self.file.header, self.file.entries, self.file.between)


def found_tables(
    given: Iterable[Path | str], source: str = "given"
) -> tuple[list[FoundTable], list[str]]:
    """Read the tables that ``given`` names: files, folders, and the word ``bundled``.

    Returns the tables, each file once, and one line for each thing in a folder that is no table
    or cannot be read.

    Raises:
        InputError: a file that is named and is no table, or a folder without one.
    """
    found: dict[str, FoundTable] = {}
    problems: list[str] = []
    for each in map(str, given):
        path = Path(each)
        if each != BUNDLED and not path.is_dir():
            found.setdefault(realpath(path), FoundTable(path, TableFile.load(path), source))
            continue
        from mla_tune.table.loading import locate  # with all that lookups take

        paths, left_out = locate(each, named_by="you name")
        problems += left_out
        for path in paths:
            real = realpath(path)
            if real in found:
                continue
            try:
                found[real] = FoundTable(path, TableFile.load(path), source)
            except InputError as error:
                problems.append("; ".join(str(error).splitlines()))
    return list(found.values()), problems
