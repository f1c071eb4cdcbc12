"""All devices of a run together: what they do side by side, and what waits for all of them."""

__all__ = ["Pool"]

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from mla_tune.errors import DeviceLost
from mla_tune.tuning.nominee import Nominee
from mla_tune.tuning.other_processes import settled, wanting
from mla_tune.tuning.pool.member import Member
from mla_tune.tuning.pool.member_run import MemberRun
from mla_tune.tuning.pool.queue import PAUSE_S, UnitQueue
from mla_tune.tuning.pool.sentinels import Sighting, disagreements, sentinels_of
from mla_tune.tuning.pool.shared_table import SharedTable, Unit
from mla_tune.tuning.pool.side_by_side import side_by_side
from mla_tune.tuning.reporters import Reporter
from mla_tune.tuning.settings import Settings

Waiting = dict[Member, list[tuple[Unit, Nominee]]]


@dataclass
class Pool:
    """Works through the units of a run on several devices.

    Args:
        runs: what each device does, one a device.
        tables: what there is to do.
        queue: hands out the units of ``tables``.
        settings: how much to measure.
        reporter: who is told how it goes.

    Attributes:
        remarks: what the summary has to say of single devices.
    """

    runs: Sequence[MemberRun]
    tables: Sequence[SharedTable]
    queue: UnitQueue
    settings: Settings
    reporter: Reporter
    remarks: list[str] = field(default_factory=list, init=False)

    def run(self) -> None:
        """Tune everything that a device is left for.

        Raises:
            EnvironmentFailure: the disk or the host failed. As with KeyboardInterrupt, all devices
                have stopped, and what is decided is kept.
        """
        try:
            self._compare_cards()
            before: tuple[Unit, ...] = ()
            told = False
            while True:
                self._side_by_side(dict.fromkeys(self._living(), MemberRun.tune))
                self._race_nominees()
                self._give_up_what_none_can()
                waiting = self.queue.waiting
                if not waiting:
                    return
                if waiting == before:  # other runs have them
                    told = told or self._tell_of_others(len(waiting))
                    time.sleep(PAUSE_S)
                before = waiting
        except BaseException:
            self.stop()
            raise
        finally:
            for table in self.tables:
                table.close()

    def _tell_of_others(self, count: int) -> bool:
        what = f"{count} batch shapes are with other runs of this storage"
        self.reporter.skipped(f"{what}; waiting for them")
        return True

    def stop(self) -> None:
        """End what is being measured."""
        self.queue.stop()
        for run in self.runs:
            run.member.bench.stop()
        for run in self.runs:
            run.member.thread.shutdown()

    def _living(self) -> list[MemberRun]:
        return [run for run in self.runs if not run.member.is_lost]

    def _side_by_side(self, work: dict[MemberRun, Callable[[MemberRun], None]]) -> None:
        """Do ``work`` in the threads of its devices, until all have done or one cannot go on."""
        side_by_side((run.member.thread, partial(task, run)) for run, task in work.items())

    def _race_nominees(self) -> None:
        """Race what won, on its own card, until no other process has to see it; and decide."""
        while waiting := self._waiting():
            runs = [run for run in self._living() if run.member in waiting]
            self._side_by_side({run: _racing(waiting[run.member]) for run in runs})
        self._put_back_lost()
        for table in self.tables:
            self._decide(table)

    def _waiting(self) -> Waiting:
        """The nominees that want one more process, by their devices."""
        found: Waiting = {}
        for table in self.tables:
            spread = table.spread()
            for unit, (member, nominee) in table.nominees.items():
                is_able = not (member.is_lost or member.is_final)
                if is_able and wanting([nominee], self.settings, spread):
                    found.setdefault(member, []).append((unit, nominee))
        return found

    def _put_back_lost(self) -> None:
        """Have the nominees of devices that are lost tuned on others."""
        for table in self.tables:
            lost = [unit for unit, (member, _) in table.nominees.items() if member.is_lost]
            for unit in lost:
                del table.nominees[unit]
            self.queue.put_back(lost)

    def _decide(self, table: SharedTable) -> None:
        """Decide the nominees; where a plan was refused, the workload is tuned again without it."""
        spread = table.spread()
        again: list[Unit] = []
        for unit, (_, nominee) in table.nominees.items():
            entry = settled(nominee, table.job, spread, self.settings, self.reporter)
            if entry is None:
                again.append(unit)
                continue
            self.reporter.decided(table.job, unit.workload, entry)
            table.publish(entry)
            self.queue.release(unit)
        table.nominees.clear()
        self.queue.put_back(again)
        table.finish()

    def _give_up_what_none_can(self) -> None:
        """Give up what waits for a device that is lost, or that cannot open its session."""
        for table in self.tables:
            able = [
                run
                for run in self._living()
                if run.member.kind == table.kind and run.member not in table.cannot_open
            ]
            if not able:
                reasons = [*table.cannot_open.values(), DeviceLost("no device is left for it")]
                table.given_up(self.queue.withdraw(table), reasons[0])

    def _compare_cards(self) -> None:
        """Have cards of one kind measure the same few shapes, where there is anything to tune."""
        seen: dict[MemberRun, Sighting] = {}
        groups = self._groups()
        looks = {run: _looking(table, seen) for table, runs in groups for run in runs}
        self._side_by_side(looks)
        for _, runs in groups:
            self._remark({run: seen[run] for run in runs if seen.get(run)})

    def _groups(self) -> list[tuple[SharedTable, list[MemberRun]]]:
        """The devices of each kind that has several, with a table to compare them by."""
        found = []
        for kind in dict.fromkeys(run.member.kind for run in self.runs):
            runs = [run for run in self.runs if run.member.kind == kind]
            tables = [table for table in self.tables if table.kind == kind and table.has_work]
            if len(runs) > 1 and tables:
                found.append((tables[0], runs))
        return found

    def _remark(self, seen: dict[MemberRun, Sighting]) -> None:
        by_name = {run.member.name: run for run in seen}
        found = disagreements({name: seen[run] for name, run in by_name.items()})
        for name, ratio in found.items():
            member = by_name[name].member
            member.remark = f"card {member.card} takes {ratio:.2f} times as long as the others"
            told = f"{name} ({member.card}) takes {ratio:.2f} times as long as the other devices"
            self.remarks.append(told)
            self.reporter.skipped(told)


def _racing(waiting: list[tuple[Unit, Nominee]]) -> Callable[[MemberRun], None]:
    return lambda run: run.race(waiting)


def _looking(table: SharedTable, seen: dict[MemberRun, Sighting]) -> Callable[[MemberRun], None]:
    cost = {unit.workload: unit.cost for unit in table.units()}
    chosen = sentinels_of(table.job.workloads, cost)

    def look(run: MemberRun) -> None:
        seen[run] = run.look(table, chosen)

    return look
