"""The winners of a table once more, in processes that start anew, before they are published."""

__all__ = ["OtherProcesses"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mla_tune.errors import MlaTuneError, UnavailableError, WorkloadFailure
from mla_tune.plan.failure import PlanFailure
from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.loaded import LoadedWorkload
from mla_tune.tuning.nominee import Nominee
from mla_tune.tuning.process_spread import spread_of
from mla_tune.tuning.race import Race
from mla_tune.tuning.reporters import Reporter
from mla_tune.tuning.second_look import remarks, second_look
from mla_tune.tuning.streak import Streak
from mla_tune.tuning.tally import Tally
from mla_tune.tuning.tuner import Tuner

MOST_MORE = 2
"""Processes beyond those asked for that a nominee with the gate in its interval may take. With them
83 of 100 gains of 2 % are found where plans have a bias of 0.45 % (`scripts/null_test.py`)."""


@dataclass
class OtherProcesses:
    """Races the nominees of one table in one fresh process after another.

    All of them in one, then all of them in the next: a start, some 10 to 15 s on a GPU, is paid
    once a process and not once a workload.

    Args:
        job: the table.
        tuner: whose bench, journal and quarantine are used.
        reporter: who is told how it goes.
        tally: takes what cannot be measured.
        decided: takes each entry once it is decided.
    """

    job: TableJob
    tuner: Tuner
    reporter: Reporter
    tally: Tally
    decided: Callable[[Workload, Entry], None]

    def confirm(self, nominees: Sequence[Nominee]) -> None:
        """Decide each nominee; those that cannot be measured stay undecided in the journal."""
        left = list(nominees)
        while waiting := self._waiting(left):
            if not self.tuner.bench.renew():
                break
            self.reporter.renewed(self.job, len(waiting))
            lost = self._race_each(waiting)
            left = [nominee for nominee in left if nominee not in lost]
        spread = _spread(left)
        for nominee in left:
            entry = nominee.decide(spread, self.tuner.settings.min_speedup)
            self.decided(nominee.workload, entry)

    def _waiting(self, nominees: Sequence[Nominee]) -> list[Nominee]:
        settings, spread = self.tuner.settings, _spread(nominees)
        if settings.processes == 1:
            return []
        few, most = settings.processes, settings.processes + MOST_MORE
        return [n for n in nominees if n.wants_another(few, most, spread, settings.min_speedup)]

    def _race_each(self, nominees: Sequence[Nominee]) -> list[Nominee]:
        """Race them in one process; returns those whose workload could not be measured."""
        lost: list[Nominee] = []
        streak = Streak()
        for index, nominee in enumerate(nominees, start=1):
            self.reporter.started(self.job, nominee.workload)
            try:
                self._race(nominee)
            except (WorkloadFailure, UnavailableError) as error:
                lost.append(nominee)
                self.tally.failed(self.job, nominee.workload, error)
                left = nominees[index:]
                if streak.is_over(error) and left:
                    self._give_up(left, error)
                    return [*lost, *left]
            else:
                streak.end()
        return lost

    def _give_up(self, nominees: Sequence[Nominee], error: MlaTuneError) -> None:
        self.tally.given_up(self.job, [nominee.workload for nominee in nominees], error)

    def _race(self, nominee: Nominee) -> None:
        tuner, plan, default = self.tuner, nominee.entry.plan, nominee.default
        loaded = LoadedWorkload(
            nominee.workload, default, tuner.bench, tuner.quarantine, tuner.ward
        )
        reason = loaded.quarantined(plan)
        if reason is not None:  # by a run that was killed right after it
            nominee.failure = plan, reason
            return
        number, rounds = len(nominee.looks), tuner.settings.process_rounds
        self.reporter.confirming(nominee.workload, [default, plan], 0)
        try:
            samples = second_look(
                tuner.bench, nominee.workload, default, plan, rounds, number * rounds
            )
        except PlanFailure as failure:
            blamed = default if failure.plan == default else plan
            nominee.failure = blamed, loaded.filed(blamed, failure)
            return
        rounds_of = [each.rounds for each in samples]
        nominee.add(Race(plan, rounds_of[0], rounds_of[1], tuple(remarks(*samples))))


def _spread(nominees: Sequence[Nominee]) -> float:
    return spread_of([[look[0].speedup for look in nominee.looks] for nominee in nominees])
