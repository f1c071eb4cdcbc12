"""The winners of a table once more, in processes that start anew, before they are published."""

__all__ = ["OtherProcesses", "settled", "spread_over", "wanting"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.nominee import Nominee
from mla_tune.tuning.one_process import OneProcess
from mla_tune.tuning.process_spread import spread_of
from mla_tune.tuning.reporters import Reporter
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.tally import Tally
from mla_tune.tuning.tuner import Tuner

MOST_MORE = 2
"""Processes beyond those asked for that a nominee with the gate in its interval may take. With them
83 of 100 gains of 2 % are found where plans have a bias of 0.45 % (`scripts/null_test.py`)."""


@dataclass
class OtherProcesses:
    """Races the nominees of one table in one fresh process after another.

    All of them in one, then all of them in the next: a start, some 30 to 40 s on a GPU, is paid
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

    def confirm(self, nominees: Sequence[Nominee]) -> list[Workload]:
        """Decide each nominee; those that cannot be measured stay undecided in the journal.

        Returns:
            The workloads that are to be tuned again, without the plan that was refused.
        """
        left, process = list(nominees), OneProcess(self.job, self.tuner, self.reporter, self.tally)
        while waiting := wanting(left, self.tuner.settings):
            if not self.tuner.bench.renew():
                break
            self.reporter.renewed(self.job, len(waiting))
            lost = process.race_each(waiting)
            left = [nominee for nominee in left if nominee not in lost]
        spread = spread_over(left)
        again: list[Workload] = []
        for nominee in left:
            entry = settled(nominee, self.job, spread, self.tuner.settings, self.reporter)
            if entry is None:
                again.append(nominee.workload)
            else:
                self.decided(nominee.workload, entry)
        return again


def wanting(
    nominees: Sequence[Nominee], settings: Settings, spread: float | None = None
) -> list[Nominee]:
    """Those of ``nominees`` that one more process has to see; ``spread`` is theirs if not given."""
    if settings.processes == 1:
        return []
    if spread is None:
        spread = spread_over(nominees)
    few, most = settings.processes, settings.processes + MOST_MORE
    return [n for n in nominees if n.wants_another(few, most, spread, settings.min_speedup)]


def settled(
    nominee: Nominee, job: TableJob, spread: float, settings: Settings, reporter: Reporter
) -> Entry | None:
    """What a nominee of ``job`` ends in; ``spread`` as of `Nominee.decide`.

    None where its plan is refused, which ``reporter`` is told: the workload is to be tuned again
    without it.
    """
    entry = nominee.decide(spread, settings.min_speedup)
    if not nominee.refusal:
        return entry
    told = f"{job.path.stem}: {nominee.workload}: {nominee.refusal}; tuned again without it"
    reporter.skipped(told)
    return None


def spread_over(nominees: Sequence[Nominee]) -> float:
    """How far processes lie apart, over the nominees of a table."""
    return spread_of([[look.together.speedup for look in nominee.looks] for nominee in nominees])
