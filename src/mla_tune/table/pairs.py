"""Tables of two folders, side by side."""

__all__ = ["TablePair", "paired"]

from dataclasses import dataclass
from pathlib import Path

from mla_tune.errors import InputError
from mla_tune.table.folders import tables_in


@dataclass(frozen=True)
class TablePair:
    """A table before and after; None where it is not in one of the folders."""

    name: str
    old: Path | None
    new: Path | None


def paired(old: Path, new: Path) -> list[TablePair]:
    """Pair two tables, or those of two folders by their place below them.

    Raises:
        InputError: a file against a folder, a path that does not exist, or something in a folder
            that cannot be read: what is not seen would be called removed.
    """
    for path in (old, new):
        if not path.exists():
            raise InputError(f"{path} does not exist", valid="a table or a folder of tables")
    if old.is_dir() != new.is_dir():
        raise InputError(
            f"{old} and {new}: one is a folder", valid="two tables, or two folders of tables"
        )
    if not old.is_dir():
        return [TablePair(new.name, old, new)]
    before, after = _by_place(old), _by_place(new)
    return [
        TablePair(place, before.get(place), after.get(place)) for place in sorted(before | after)
    ]


def _by_place(folder: Path) -> dict[str, Path]:
    found, problems = tables_in(folder)
    if problems:
        raise InputError("; ".join(problems))
    return {path.relative_to(folder).as_posix(): path for path in found}
