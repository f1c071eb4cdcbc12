"""A whole run: every assignment into its own table, whatever becomes of single workloads."""

__all__ = ["Campaign", "Reporter"]

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mla_tune.errors import (
    EnvironmentFailure,
    InputError,
    MlaTuneError,
    UnavailableError,
    WorkloadFailure,
)
from mla_tune.measuring.bench import Bench
from mla_tune.registry import get_backend
from mla_tune.shapes import Workload
from mla_tune.table import Entry, Publication, TableFile
from mla_tune.table.between import Between
from mla_tune.tuning.assignment import Assignment, check_table
from mla_tune.tuning.between import between
from mla_tune.tuning.observers import Observer
from mla_tune.tuning.quarantine import Quarantine, Ward
from mla_tune.tuning.result import Failure
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.streak import Streak
from mla_tune.tuning.study import Journal
from mla_tune.tuning.tuner import Tuner


class Reporter(Observer, Protocol):
    """Who is told how the whole run goes."""

    def skipped(self, what: str) -> None: ...
    def assigned(self, assignments: Sequence[Assignment]) -> None: ...
    def started(self, assignment: Assignment, workload: Workload) -> None: ...
    def decided(self, assignment: Assignment, workload: Workload, entry: Entry) -> None: ...
    def failed(self, assignment: Assignment, workload: Workload, error: MlaTuneError) -> None: ...
    def given_up(
        self, assignment: Assignment, workloads: Sequence[Workload], error: MlaTuneError
    ) -> None: ...
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
        replace: start a table anew where one is there that cannot be read or is true for
            something else.
        clock: seconds in which the run ran, for the length of a confirmation.
    """

    bench: Bench
    study_dir: Path
    settings: Settings
    reporter: Reporter
    replace: bool = False
    clock: Callable[[], float] = time.monotonic
    published: dict[Path, list[Entry]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def run(self, assignments: Sequence[Assignment]) -> None:
        """Tune everything, writing entries to their tables as they are decided.

        Each is in the study at once, and in its table when writing that is due (`Publication`), at
        the latest when the table is done or the run is interrupted.

        What is in its table ends up in `published`, by the table's path, and what could not be
        tuned in `failures`; the rest goes on.

        Raises:
            InputError: a file of the study folder that cannot be used, or not one table that can.
            EnvironmentFailure: the machine, the disk or the device failed.
        """
        quarantine = Quarantine(self.study_dir / "quarantine.yaml", self.reporter.skipped)
        self.reporter.assigned(assignments)
        for assignment in self._with_usable_tables(assignments):
            self._tune(assignment, quarantine)

    def _with_usable_tables(self, assignments: Sequence[Assignment]) -> list[Assignment]:
        """Say which tables cannot be added to before anything is measured; the others go on."""
        if self.replace:
            return list(assignments)
        problems: list[tuple[Assignment, InputError]] = []
        usable: list[Assignment] = []
        for assignment in assignments:
            try:
                check_table(assignment)
            except InputError as error:
                problems.append((assignment, error))
            else:
                usable.append(assignment)
        if problems and not usable:
            raise problems[0][1]
        for assignment, problem in problems:
            self._given_up(assignment, assignment.workloads, problem)
        return usable

    def _tune(self, assignment: Assignment, quarantine: Quarantine) -> None:
        """Tune one table; whatever is wrong with its files or its session costs this one only."""
        try:
            previous = self._previous(assignment)
            journal = self._journal(assignment)
        except InputError as error:
            self._given_up(assignment, assignment.workloads, error)
            return
        tuner = Tuner(
            *(self.bench, journal, quarantine, self._ward(assignment)),
            *(self.settings, self.reporter, self.clock),
        )
        publishing = _Publishing(self, assignment)
        try:
            self.bench.open(assignment.setup)
            self._tune_each(assignment, tuner, previous, publishing)
            publishing.model = self._model(assignment, tuner)
        except (WorkloadFailure, UnavailableError) as error:
            self._given_up(assignment, assignment.workloads, error)
        finally:
            journal.close()
            publishing.finish()

    def _tune_each(
        self,
        assignment: Assignment,
        tuner: Tuner,
        previous: Mapping[str, Entry],
        publishing: "_Publishing",
    ) -> None:
        entry, streak = None, Streak()
        for index, workload in enumerate(assignment.workloads, start=1):
            self.reporter.started(assignment, workload)
            try:
                entry = tuner.tune(workload, previous.get(str(workload)), entry)
            except (WorkloadFailure, UnavailableError) as error:
                self._failed(assignment, workload, error)
                left = assignment.workloads[index:]
                if streak.is_over(error) and left:
                    self._end_early(assignment, left, tuner, publishing, error)
                    return
            else:
                streak.end()
                self.reporter.decided(assignment, workload, entry)
                publishing.add(entry)

    def _model(self, assignment: Assignment, tuner: Tuner) -> Between | None:
        """What answers between the entries of a table that is done, if that can be proven."""
        header = assignment.header
        cut = get_backend(header.backend).cut
        on_gpu = header.device.compute_capability is not None
        if header.engine.mode != "eager" or cut is None or not on_gpu:
            return None
        try:
            trials = [tuner.trials(workload) for workload in assignment.workloads]
            return between(trials, header, cut, self.settings.min_speedup, tuner.default_at)
        except (WorkloadFailure, UnavailableError):
            return None  # the worker has ended, and what it cost has been said

    def _end_early(
        self,
        assignment: Assignment,
        left: Sequence[Workload],
        tuner: Tuner,
        publishing: "_Publishing",
        error: MlaTuneError,
    ) -> None:
        """Give up what is left of a table, all but what an earlier run has decided."""
        open_still: list[Workload] = []
        for index, workload in enumerate(left):
            try:
                entry = tuner.decided(workload)
            except (WorkloadFailure, UnavailableError):
                open_still += left[index:]
                break
            if entry is None:
                open_still.append(workload)
                continue
            self.reporter.started(assignment, workload)
            self.reporter.decided(assignment, workload, entry)
            publishing.add(entry)
        if open_still:
            self._given_up(assignment, open_still, error)

    def _journal(self, assignment: Assignment) -> Journal:
        digest = self.bench.environment.software_digest
        journal = Journal(self.study_dir / f"{assignment.path.stem}.{digest}.journal")
        for notice in journal.notices:
            self.reporter.skipped(notice)
        return journal

    def _ward(self, assignment: Assignment) -> Ward:
        environment, header = self.bench.environment, assignment.header
        return Ward(
            backend=header.backend,
            device=header.device.name,
            model=header.model,
            kv_cache_dtype=header.kv_cache_dtype,
            mode=header.engine.mode,
            software=environment.software,
            software_digest=environment.software_digest,
            settings=header.own_settings,
        )

    def _failed(self, assignment: Assignment, workload: Workload, error: MlaTuneError) -> None:
        self.failures.append(Failure(assignment.path, (str(workload),), error))
        self.reporter.failed(assignment, workload, error)

    def _given_up(
        self, assignment: Assignment, workloads: Sequence[Workload], error: MlaTuneError
    ) -> None:
        """Note once that ``workloads`` are not tuned, all for one cause."""
        self.failures.append(Failure(assignment.path, tuple(map(str, workloads)), error))
        self.reporter.given_up(assignment, workloads, error)

    def _previous(self, assignment: Assignment) -> dict[str, Entry]:
        """Last night's entries; with --replace a table ends that this run cannot add to."""
        if not os.path.lexists(assignment.path):
            return {}
        try:
            old = TableFile.load(assignment.path)
        except InputError as error:
            if not self.replace:
                raise
            self._put_aside(assignment.path, f"cannot be read ({error.what}); it is")
            return {}
        difference = old.header.first_difference(assignment.header)
        if self.replace and difference:
            field, was, now = difference
            self._put_aside(
                assignment.path,
                f"was for {field} {was}, this run is for {now}; its {len(old.entries)} entries are",
            )
            return {entry.shape: _as_a_guess(entry) for entry in old.entries}
        return {entry.shape: entry for entry in old.entries}

    def _put_aside(self, path: Path, what: str) -> None:
        """Make room for a table that --replace starts anew."""
        kept = _free_name(path)
        try:
            path.rename(kept)
        except OSError as error:
            raise EnvironmentFailure(f"table {path} cannot be renamed: {error.strerror}") from None
        self.reporter.skipped(f"--replace: {path} {what} kept in {kept}")


class _Publishing:
    """The decided entries of one table that are still to be written to it."""

    def __init__(self, campaign: Campaign, assignment: Assignment) -> None:
        self._campaign = campaign
        self._assignment = assignment
        self._publication = Publication(assignment.path, assignment.header)
        self._waiting: list[Entry] = []
        self.model: Between | None = None

    def add(self, entry: Entry) -> None:
        """Write an entry, with those that wait, where that is due."""
        self._waiting.append(entry)
        if self._publication.is_due:
            self.finish()

    def finish(self) -> None:
        """Write what waits. A full disk costs no verdict, since the study has it already."""
        path = self._assignment.path
        entries, self._waiting = self._waiting, []
        if not entries and self.model is None:
            return
        try:
            self._publication.write(entries, self.model)
        except MlaTuneError as error:
            self._campaign.failures += [Failure(path, (entry.shape,), error) for entry in entries]
            self._campaign.reporter.unpublished(self._assignment, entries, error)
        else:
            self._campaign.published.setdefault(path, []).extend(entries)


def _as_a_guess(entry: Entry) -> Entry:
    """An entry that was true for something else: good for the ranking, and proof of nothing."""
    guess = {"plan": None, "unproven": entry.plan or entry.unproven, "default_us": None}
    return entry.model_copy(update=guess)


def _free_name(path: Path) -> Path:
    """Where a replaced table goes: beside, under a name that no earlier one has."""
    names = (path.with_name(f"{path.name}.replaced{number or ''}") for number in itertools.count())
    return next(name for name in names if not name.exists())
