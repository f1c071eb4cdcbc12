"""The races of a table's nominees in one process."""

__all__ = ["OneProcess"]

from collections.abc import Sequence
from dataclasses import dataclass

from mla_tune.errors import MlaTuneError, UnavailableError, WorkloadFailure
from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.failure import PlanFailure
from mla_tune.shapes import Workload
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.loaded import LoadedWorkload
from mla_tune.tuning.nominee import Nominee
from mla_tune.tuning.race import Race
from mla_tune.tuning.reporters import Reporter
from mla_tune.tuning.second_look import remarks, second_look, tells_enough
from mla_tune.tuning.streak import Streak
from mla_tune.tuning.tally import Tally
from mla_tune.tuning.tuner import Tuner


@dataclass(frozen=True)
class OneProcess:
    """Races nominees in the process that the bench has now.

    Args:
        job: their table.
        tuner: whose bench, journal and quarantine are used.
        reporter: who is told how it goes.
        tally: takes what cannot be measured.
    """

    job: TableJob
    tuner: Tuner
    reporter: Reporter
    tally: Tally

    def race_each(self, nominees: Sequence[Nominee]) -> list[Nominee]:
        """Race them; returns those whose workload could not be measured."""
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
        raced = Workload(tuple(nominee.workload.cases[case] for case in nominee.raced))

        def is_enough(default: Samples, plan: Samples) -> bool:
            return tells_enough(default, plan, raced.shares())

        try:
            samples = second_look(
                tuner.bench, raced, default, plan, rounds, number * rounds, is_enough
            )
        except PlanFailure as failure:
            blamed = default if failure.plan == default else plan
            nominee.failure = blamed, loaded.filed(blamed, failure)
            return
        rounds_of = [nominee.widened(each.rounds) for each in samples]
        nominee.add(Race(plan, rounds_of[0], rounds_of[1], tuple(remarks(*samples)), tuner.card))
