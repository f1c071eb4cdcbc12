"""The table that is there before a run: whether it can be added to, and what its entries say."""

__all__ = ["check_table", "previous_entries"]

import itertools
import os
from collections.abc import Callable
from pathlib import Path

from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.plan.plan import UNTUNED
from mla_tune.printable import counted_are
from mla_tune.table import Entry, TableFile, check_mergeable
from mla_tune.tuning.job import TableJob


def check_table(job: TableJob) -> None:
    """Make sure that the job's entries can be merged into the table that is there.

    Raises:
        InputError: it cannot be read, or is true for something else.
    """
    if os.path.lexists(job.path):
        old = TableFile.load(job.path)
        check_mergeable(job.path, old.header, job.header)


def previous_entries(
    job: TableJob, notice: Callable[[str], None], *, replace: bool
) -> dict[str, Entry]:
    """The entries of the table that is there, by shape.

    Args:
        job: whose table.
        notice: told of a table that is put aside.
        replace: whether a table that this run cannot add to is put aside under another name.

    Raises:
        InputError: the table cannot be read.
        EnvironmentFailure: it cannot be renamed.
    """
    if not os.path.lexists(job.path):
        return {}
    try:
        old = TableFile.load(job.path)
    except InputError as error:
        if not replace:
            raise
        _put_aside(job.path, notice, f"cannot be read ({error.what}); it is")
        return {}
    difference = old.header.first_difference(job.header)
    if replace and difference:
        field, was, now = difference
        _put_aside(
            job.path,
            notice,
            f"was for {field} {was}, this run is for {now}; its "
            + counted_are(len(old.entries), "entry"),
        )
        return {entry.shape: _as_a_guess(entry) for entry in old.entries}
    return {entry.shape: entry for entry in old.entries}


def _put_aside(path: Path, notice: Callable[[str], None], what: str) -> None:
    """Rename a table, so that --replace can begin another in its place."""
    kept = _free_name(path)
    try:
        path.rename(kept)
    except OSError as error:
        raise EnvironmentFailure(f"table {path} cannot be renamed: {error.strerror}") from None
    notice(f"--replace: {path} {what} kept in {kept}")


def _as_a_guess(entry: Entry) -> Entry:
    """The entry of a table for something else: it ranks plans, and proves nothing here."""
    guess = {"plan": UNTUNED, "unproven": entry.plan or entry.unproven, "default_us": None}
    return entry.model_copy(update=guess)


def _free_name(path: Path) -> Path:
    """Where a replaced table goes: beside, under a name that no earlier one has."""
    names = (path.with_name(f"{path.name}.replaced{number or ''}") for number in itertools.count())
    return next(name for name in names if not name.exists())
