"""Where a table is tuned anew before it takes the place of the one that engines read."""

__all__ = ["Staging"]

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from mla_tune.errors import EnvironmentFailure
from mla_tune.files.atomic_write import write_atomically
from mla_tune.nightly.target import Target
from mla_tune.table import Publication, TableFile
from mla_tune.tuning.job import TableJob


@dataclass(frozen=True)
class Staging:
    """A folder for one retune of one table, with a table and studies of its own.

    It is there from the moment the retune begins until its table is published, so that a night
    that was cut short goes on where it was. It begins with a copy of the table that is there, for
    the ranking of plans and for entries that stay.

    Args:
        root: the study folder of the user, whose quarantine holds here too.
        target: what is tuned.
        digest: of the software; another has a folder of its own.
    """

    root: Path
    target: Target
    digest: str

    @property
    def folder(self) -> Path:
        return self._family / self.digest

    @property
    def _family(self) -> Path:
        place = str(self.target.path.resolve())
        own = hashlib.sha256(place.encode()).hexdigest()[:8]
        return self.root / "retune" / f"{self.target.path.stem}.{own}"

    @property
    def study_folder(self) -> Path:
        return self.folder / "study"

    @property
    def path(self) -> Path:
        return self.folder / self.target.path.name

    @property
    def has_begun(self) -> bool:
        return self.path.exists() or self.study_folder.exists()

    def begun(self) -> TableJob:
        """The job that tunes here, with all that it begins with in place.

        Raises:
            EnvironmentFailure: the study folder cannot be written.
        """
        try:
            if not self.has_begun:
                # What was left half done for other software is of no use any more.
                shutil.rmtree(self._family, ignore_errors=True)
                self.folder.mkdir(parents=True)
                write_atomically(self.path, self.target.file.document.text)
                self.study_folder.mkdir()
            link, quarantine = self.study_folder / "quarantine.yaml", self.root / "quarantine.yaml"
            if not link.is_symlink():
                quarantine.touch()
                link.symlink_to(quarantine.resolve())
        except OSError as error:
            raise EnvironmentFailure(
                f"study folder {self.folder} cannot be written: {error.strerror or error}",
                remedy="make room, or choose another with --study-dir",
            ) from None
        return replace(self.target.job, path=self.path)

    def publish(self) -> TableFile:
        """Put what was tuned in the place of the table, and end.

        Entries that others have put there meanwhile stay, where both tables are true for the same.

        Raises:
            InputError, EnvironmentFailure: as of `Publication.write`; the old table is untouched.
        """
        new, path = TableFile.load(self.path), self.target.path
        if self._adds_to_it(new):
            Publication(path, new.header).write(new.entries, new.between)
        else:
            self._replace(path, new.document.text)
        shutil.rmtree(self._family, ignore_errors=True)
        return TableFile.load(path)

    def _adds_to_it(self, new: TableFile) -> bool:
        path = self.target.path
        return path.exists() and TableFile.load(path).header.first_difference(new.header) is None

    def _replace(self, path: Path, text: str) -> None:
        try:
            with FileLock(path.with_name(f".{path.name}.lock"), timeout=60):
                write_atomically(path, text)
        except (OSError, Timeout) as error:
            raise EnvironmentFailure(
                f"table {path} cannot be written: {error}",
                remedy="what was tuned is kept; the same command goes on",
            ) from None
