"""A run on several devices: which there are, what each kind of them has to do, and the tuning."""

__all__ = ["run_on_several", "tuned_by"]

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial

from mla_tune.environment import Environment
from mla_tune.errors import InputError
from mla_tune.shapes.file import ShapesFile
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.planner import Planner
from mla_tune.tuning.pool.campaign import PoolCampaign
from mla_tune.tuning.pool.kinds import by_kind, tell_of_gpus
from mla_tune.tuning.pool.local import all_alone, asked_devices, empty_logs, local_members
from mla_tune.tuning.pool.member import Kind, Member
from mla_tune.tuning.pool.ray_members import ray_members
from mla_tune.tuning.reporters import Reporter
from mla_tune.tuning.result import TuneResult
from mla_tune.tuning.run_options import RunOptions
from mla_tune.tuning.run_settings import check_folders, own_part, settings_for
from mla_tune.tuning.study import Journal, Subject
from mla_tune.tuning.study.database import StudyDatabase
from mla_tune.tuning.table_start import opened_journal


def run_on_several(shapes: ShapesFile, options: RunOptions, reporter: Reporter) -> TuneResult:
    """Tune ``shapes`` on the GPUs that ``options`` name, or on a Ray cluster.

    Raises:
        InputError, EnvironmentFailure: as of `mla_tune.tuning.run.run`.
    """
    check_folders(options, reporter.skipped)
    with _database(options) as database:
        if options.ray is not None:
            with ray_members(options, reporter.skipped) as members:
                return tuned_by(members, shapes, options, reporter, database)
        return _run_here(shapes, options, reporter, database)


def _run_here(
    shapes: ShapesFile, options: RunOptions, reporter: Reporter, database: StudyDatabase | None
) -> TuneResult:
    with local_members(asked_devices(options), options) as members:
        _planned(members, shapes, options, lambda _what: None, plentiful=True)
        with all_alone(members, reporter.skipped, wait=options.wait):
            empty_logs(members)
            return tuned_by(members, shapes, options, reporter, database)


def tuned_by(
    members: Sequence[Member],
    shapes: ShapesFile,
    options: RunOptions,
    reporter: Reporter,
    database: StudyDatabase | None = None,
) -> TuneResult:
    """Tune ``shapes`` on ``members``, which nobody else measures on.

    Raises:
        InputError, EnvironmentFailure: as of `mla_tune.tuning.run.run`.
    """
    tell_of_gpus(members, reporter.skipped)
    planned = _planned(members, shapes, options, reporter.skipped)
    jobs = {kind: own_part(own, options, reporter.skipped) for kind, own in planned.items()}
    campaign = PoolCampaign(
        members=members,
        journals=partial(_journal, options, reporter.skipped, database),
        study_dir=options.study_folder,
        settings=settings_for(options, members[0].environment),
        reporter=reporter,
        replace=options.replace,
        claims=database.claims if database is not None else None,
    )
    return campaign.run(jobs)


def _planned(
    members: Sequence[Member],
    shapes: ShapesFile,
    options: RunOptions,
    notice: Callable[[str], None],
    *,
    plentiful: bool = False,
) -> dict[Kind, list[TableJob]]:
    """The table jobs of each kind of device; a kind that can do nothing is told of.

    Args:
        members: the devices.
        shapes, options: what to tune.
        notice: told of what is left out.
        plentiful: whether memory does not count yet, before the run has the devices.

    Raises:
        InputError: there is nothing that can be tuned on any of them, or two kinds have one name.
    """
    found: dict[Kind, list[TableJob]] = {}
    problems: list[InputError] = []
    for kind, own in by_kind(members).items():
        first = own[0]
        free_bytes = sys.maxsize if plentiful else min(m.bench.free_bytes() for m in own)
        planner = Planner(
            *(first.environment, first.bench.device, free_bytes, shapes, options.out, notice),
            launches=options.launches,
            served=options.served_lengths,
        )
        try:
            found[kind] = planner.jobs(options.backends)
        except InputError as error:
            problems.append(error)
            names = ", ".join(member.name for member in own)
            notice(f"{first.environment.device_name} ({names}) is left out: {error.what}")
    if not found:
        raise problems[0]
    return found


@contextmanager
def _database(options: RunOptions) -> Iterator[StudyDatabase | None]:
    """The database of the studies, if they are in one."""
    if options.database is None:
        yield None
        return
    with closing(StudyDatabase(options.database)) as database, database.failures_named():
        yield database


def _journal(
    options: RunOptions,
    notice: Callable[[str], None],
    database: StudyDatabase | None,
    job: TableJob,
    environment: Environment,
) -> Journal:
    if database is not None:
        return database.journal(Subject.of(job.header, environment.software_digest))
    return opened_journal(options.study_folder, job, environment, notice, again=options.again)
