"""What there is of a table job before it is measured: its table and its journal."""

__all__ = ["journal_path", "opened_journal", "usable_jobs"]

from collections.abc import Callable, Sequence
from pathlib import Path

from mla_tune.environment import Environment
from mla_tune.errors import InputError
from mla_tune.tuning.existing_table import check_table
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.study import Journal, Subject
from mla_tune.tuning.tally import Tally


def usable_jobs(jobs: Sequence[TableJob], tally: Tally, *, replace: bool) -> list[TableJob]:
    """Say which tables cannot be added to before anything is measured; the others go on.

    Args:
        jobs: all of them.
        tally: takes those whose table cannot be used.
        replace: whether such a table is put aside.

    Raises:
        InputError: there is not one that can.
    """
    if replace:
        return list(jobs)
    problems: list[tuple[TableJob, InputError]] = []
    usable: list[TableJob] = []
    for job in jobs:
        try:
            check_table(job)
        except InputError as error:
            problems.append((job, error))
        else:
            usable.append(job)
    if problems and not usable:
        raise problems[0][1]
    for job, problem in problems:
        tally.given_up(job, job.workloads, problem)
    return usable


def journal_path(study_dir: Path, job: TableJob, environment: Environment) -> Path:
    """The journal of ``job`` in a folder; other software has another one."""
    return study_dir / f"{job.path.stem}.{environment.software_digest}.journal"


def opened_journal(
    study_dir: Path,
    job: TableJob,
    environment: Environment,
    notice: Callable[[str], None],
    *,
    again: bool = False,
) -> Journal:
    """The journal of ``job``, which is this run's until it is closed.

    Args:
        study_dir: folder of the journals.
        job: whose.
        environment: of the device.
        notice: told of damage.
        again: whether the job's workloads are forgotten, to be measured anew.

    Raises:
        InputError: another run holds it, or it is no regular file.
        EnvironmentFailure: it cannot be written.
    """
    path = journal_path(study_dir, job, environment)
    journal = Journal(path, Subject.of(job.header, environment.software_digest))
    for told in journal.notices:
        notice(told)
    if again:
        journal.forget({workload.measured_key for workload in job.workloads})
    return journal
