"""What one device does of a run's work, in its thread."""

__all__ = ["MemberRun"]

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from mla_tune.errors import DeviceLost, MlaTuneError, UnavailableError, WorkloadFailure
from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.tuning.launch_search import launches_for
from mla_tune.tuning.launches import Launches
from mla_tune.tuning.nominee import Nominee
from mla_tune.tuning.one_process import OneProcess
from mla_tune.tuning.other_processes import settled, spread_over
from mla_tune.tuning.pool.member import Member
from mla_tune.tuning.pool.queue import UnitQueue
from mla_tune.tuning.pool.sentinels import Sighting, sighting
from mla_tune.tuning.pool.shared_table import SharedTable, Unit
from mla_tune.tuning.quarantine import Quarantine
from mla_tune.tuning.reporters import Reporter
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.streak import Streak
from mla_tune.tuning.table_model import table_model
from mla_tune.tuning.tuner import Tuner


@dataclass(eq=False)
class MemberRun:
    """Tunes units on one device, and races their winners there in processes that start anew.

    Args:
        member: the device.
        queue: where its work comes from.
        quarantine, settings: as of `Tuner`.
        reporter: who is told how it goes on this device.
    """

    member: Member
    queue: UnitQueue
    quarantine: Quarantine
    settings: Settings
    reporter: Reporter
    _tuners: dict[SharedTable, Tuner] = field(default_factory=dict, init=False)
    _streaks: dict[SharedTable, Streak] = field(default_factory=dict, init=False)
    _neighbours: dict[SharedTable, Entry] = field(default_factory=dict, init=False)
    _opened: SharedTable | None = field(default=None, init=False)

    def tune(self) -> None:
        """Tune units until there are none left for this device; a lost device gives its own back.

        Raises:
            EnvironmentFailure: the disk or the host failed, with which no device can go on.
        """
        try:
            while (unit := self.queue.take(self.member, self._opened)) is not None:
                self._tune(unit)
        except DeviceLost as loss:
            self._lose(loss)

    def look(self, table: SharedTable, sentinels: Sequence[Workload]) -> Sighting:
        """Measure ``sentinels`` of ``table``; nothing where its session does not open."""
        try:
            self._open(table)
            return sighting(self.member.bench, sentinels)
        except (WorkloadFailure, UnavailableError):
            return {}
        except DeviceLost as loss:
            self._lose(loss)
            return {}

    def race(self, waiting: Sequence[tuple[Unit, Nominee]]) -> None:
        """Race nominees of this device in one more process, if there can be one.

        Raises:
            EnvironmentFailure: as `tune`.
        """
        try:
            self._opened = None
            if not self.member.bench.renew():
                self.member.is_final = True
                return
            tables = dict.fromkeys(unit.table for unit, _ in waiting)
            for table in tables:
                own = [pair for pair in waiting if pair[0].table is table]
                self.reporter.renewed(table.job, len(own))
                self._race_table(table, own)
        except DeviceLost as loss:
            self._lose(loss)

    def _open(self, table: SharedTable) -> None:
        """Open the session of ``table``, unless it is open.

        Raises:
            WorkloadFailure, UnavailableError: it cannot be built here.
        """
        if self._opened is not table:
            self._opened = None
            self.reporter.opening(table.job)
            self.member.bench.open(table.job.setup)
            self._opened = table

    def _refuse(self, unit: Unit, error: MlaTuneError) -> None:
        """Leave the table to the others of this kind, who may be able to open its session."""
        unit.table.cannot_open[self.member] = error
        self.queue.put_back([unit])
        self.reporter.skipped(f"{unit.table.job.path.stem}: not on {self.member.name}: {error}")

    def _tune(self, unit: Unit) -> None:
        table, workload = unit.table, unit.workload
        tuner = self.tuner(table)
        try:
            self._open(table)
            tuner.launches = table.launches(partial(self._searched, table, tuner))
        except (WorkloadFailure, UnavailableError) as error:
            self._refuse(unit, error)
            return
        streak = self._streaks.setdefault(table, Streak())
        self.reporter.started(table.job, workload)
        try:
            previous = table.previous.get(str(workload))
            entry = tuner.tune(workload, previous, self._neighbours.get(table))
            self._neighbours[table] = entry
            is_settled = self._found(unit, entry, tuner)
        except (WorkloadFailure, UnavailableError) as error:
            is_settled = True
            table.tally.failed(table.job, workload, error)
            if streak.is_over(error):
                self._end_early(table, error)
        else:
            streak.end()
        if is_settled and self.queue.done(unit):
            table.model(table_model(table.job, tuner))

    def _searched(self, table: SharedTable, tuner: Tuner) -> Launches:
        """The launches of a table; another run that searches them is waited for, and read."""
        with self.queue.hold(f"{table.name}/launches"):
            return launches_for(table.job, tuner, self.reporter)

    def _found(self, unit: Unit, entry: Entry, tuner: Tuner) -> bool:
        """Take what was found: decided, or a nominee that other processes have to see.

        Where a run is to have no other, a nominee is decided at once: the plans that are refused
        leave their turn to others while the rest of the work is still to be shared out.

        Returns:
            False where the unit waits to be tuned again.
        """
        table, workload = unit.table, unit.workload
        previous = table.previous.get(str(workload))
        if not entry.plan or entry is previous:
            self._decided(unit, entry)
            return True
        nominee = tuner.nominee(workload, entry, previous)
        decided = nominee.decided
        if decided is None and self.settings.processes == 1:
            spread = spread_over([nominee])
            decided = settled(nominee, table.job, spread, self.settings, self.reporter)
            if decided is None:
                self.queue.put_back([unit])
                return False
        if decided is not None:
            self._decided(unit, decided)
            return True
        table.nominate(unit, self.member, nominee)
        self.reporter.nominated(table.job, workload, entry)
        return True

    def _decided(self, unit: Unit, entry: Entry) -> None:
        self.reporter.decided(unit.table.job, unit.workload, entry)
        unit.table.publish(entry)
        self.queue.release(unit)

    def _end_early(self, table: SharedTable, error: MlaTuneError) -> None:
        """Give up what waits of a table, all but what an earlier run has decided."""
        left, tuner = [], self.tuner(table)
        for unit in self.queue.withdraw(table):
            entry = tuner.decided(unit.workload)
            if entry is None:
                left.append(unit)
            else:
                self._found(unit, entry, tuner)
        table.given_up(left, error)

    def _race_table(self, table: SharedTable, own: Sequence[tuple[Unit, Nominee]]) -> None:
        units = {nominee: unit for unit, nominee in own}
        process = OneProcess(table.job, self.tuner(table), self.reporter, table.tally)
        try:
            self._open(table)
            lost = process.race_each([*units])
        except (WorkloadFailure, UnavailableError) as error:
            lost = [*units]
            table.given_up([units[nominee] for nominee in lost], error)
        for nominee in lost:
            del table.nominees[units[nominee]]

    def _lose(self, loss: DeviceLost) -> None:
        """Take the device out of the run; what it has not decided goes to the others."""
        self.member.is_lost = True
        self.queue.lost(self.member)
        self.reporter.skipped(
            f"{self.member.name} is lost, the other devices go on with its batch shapes: {loss}"
        )

    def tuner(self, table: SharedTable) -> Tuner:
        """The tuner of ``table`` on this device."""
        if table not in self._tuners:
            self._tuners[table] = Tuner(
                bench=self.member.bench,
                journal=table.journal,
                quarantine=self.quarantine,
                ward=table.ward,
                settings=self.settings,
                observer=self.reporter,
                clock=self.member.bench.clock.now,
                card=self.member.card,
                remark=self.member.remark,
            )
        return self._tuners[table]
