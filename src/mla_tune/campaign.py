"""A whole run: every assignment into its own table, whatever becomes of single workloads."""

__all__ = ["Campaign", "Reporter"]

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mla_tune.assignment import Assignment
from mla_tune.bench import Bench
from mla_tune.errors import MlaTuneError, UnavailableError, WorkloadFailure
from mla_tune.quarantine import Quarantine, Ward
from mla_tune.shapes import Workload
from mla_tune.study import Journal
from mla_tune.table import Entry, Publication, TableFile
from mla_tune.tuner import Observer, Settings, Tuner


class Reporter(Observer, Protocol):
    """Who is told how the whole run goes."""

    def skipped(self, what: str) -> None: ...
    def assigned(self, assignments: Sequence[Assignment]) -> None: ...
    def started(self, assignment: Assignment, workload: Workload) -> None: ...
    def decided(self, assignment: Assignment, workload: Workload, entry: Entry) -> None: ...
    def failed(self, assignment: Assignment, workload: Workload, error: MlaTuneError) -> None: ...
    def unpublished(
        self, assignment: Assignment, entries: Sequence[Entry], error: MlaTuneError
    ) -> None: ...


@dataclass
class Campaign:
    """Tunes assignments on one bench.

    Args:
        bench: what measures.
        study_dir: folder of journals and quarantine.
        settings: how much to measure.
        reporter: who is told how it goes.
        replace: start a table anew where one is there that is true for something else.
    """

    bench: Bench
    study_dir: Path
    settings: Settings
    reporter: Reporter
    replace: bool = False
    failures: list[tuple[str, MlaTuneError]] = field(default_factory=list)

    def run(self, assignments: Sequence[Assignment]) -> None:
        """Tune everything, writing entries to their tables as they are decided.

        Each is in the study at once, and in its table when writing that is due (`Publication`), at
        the latest when the table is done or the run is interrupted.

        What could not be tuned ends up in `failures`; the rest goes on.

        Raises:
            InputError: a file of the study folder that cannot be used.
            EnvironmentFailure: the machine, the disk or the device failed.
        """
        quarantine = Quarantine(self.study_dir / "quarantine.yaml")
        self.reporter.assigned(assignments)
        for assignment in assignments:
            self._tune(assignment, quarantine)

    def _tune(self, assignment: Assignment, quarantine: Quarantine) -> None:
        environment, header = self.bench.environment, assignment.header
        previous = self._previous(assignment)
        name = f"{assignment.path.stem}.{environment.software_digest}.journal"
        journal = Journal(self.study_dir / name)
        ward = Ward(
            backend=header.backend,
            device=header.device.name,
            model=header.model,
            kv_cache_dtype=header.kv_cache_dtype,
            mode=header.engine.mode,
            software=environment.software,
            software_digest=environment.software_digest,
            settings=header.own_settings,
        )
        tuner = Tuner(self.bench, journal, quarantine, ward, self.settings, self.reporter)
        publishing = _Publishing(self, assignment)
        opened, entry = False, None
        try:
            for workload in assignment.workloads:
                self.reporter.started(assignment, workload)
                try:
                    if not opened:
                        self.bench.open(assignment.setup)
                        opened = True
                    entry = tuner.tune(workload, previous.get(str(workload)), entry)
                except (WorkloadFailure, UnavailableError) as error:
                    # A session that cannot be built costs its own table, not those of the others.
                    self._failed(assignment, workload, error)
                else:
                    self.reporter.decided(assignment, workload, entry)
                    publishing.add(entry)
        finally:
            journal.close()
            publishing.finish()

    def _failed(self, assignment: Assignment, workload: Workload, error: MlaTuneError) -> None:
        self.failures.append((f"{assignment.path.stem}: {workload}", error))
        self.reporter.failed(assignment, workload, error)

    def _previous(self, assignment: Assignment) -> dict[str, Entry]:
        """Last night's entries; with --replace a table that is true for something else ends."""
        if not assignment.path.exists():
            return {}
        old = TableFile.load(assignment.path)
        difference = old.header.first_difference(assignment.header)
        if self.replace and difference:
            kept = _free_name(assignment.path)
            assignment.path.rename(kept)
            field, was, now = difference
            self.reporter.skipped(
                f"--replace: {assignment.path} was for {field} {was}, this run is for {now}; "
                f"its {len(old.entries)} entries are kept in {kept}"
            )
        return {entry.shape: entry for entry in old.entries}


class _Publishing:
    """The decided entries of one table that are still to be written to it."""

    def __init__(self, campaign: Campaign, assignment: Assignment) -> None:
        self._campaign = campaign
        self._assignment = assignment
        self._publication = Publication(assignment.path, assignment.header)
        self._waiting: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Write an entry, with those that wait, where that is due."""
        self._waiting.append(entry)
        if self._publication.is_due:
            self.finish()

    def finish(self) -> None:
        """Write what waits. A full disk costs no verdict, since the study has it already."""
        entries, self._waiting = self._waiting, []
        if not entries:
            return
        try:
            self._publication.write(entries)
        except MlaTuneError as error:
            name = self._assignment.path.stem
            self._campaign.failures += [(f"{name}: {entry.shape}", error) for entry in entries]
            self._campaign.reporter.unpublished(self._assignment, entries, error)


def _free_name(path: Path) -> Path:
    """Where a replaced table goes: beside, under a name that no earlier one has."""
    names = (path.with_name(f"{path.name}.replaced{number or ''}") for number in itertools.count())
    return next(name for name in names if not name.exists())
