"""A run on several devices: which there are, what each kind of them has to do, and the tuning."""

__all__ = ["run_on_several", "tuned_by"]

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial

from mla_tune.device.choice import resolved_devices
from mla_tune.environment import Environment
from mla_tune.errors import InputError
from mla_tune.shapes.file import ShapesFile
from mla_tune.tuning.device_bench import tell_of_gpu
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.planner import Planner
from mla_tune.tuning.pool.campaign import PoolCampaign
from mla_tune.tuning.pool.local import all_alone, empty_logs, local_members
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
    several = options.devices
    devices = resolved_devices(several) if several is not None else (options.device,)
    with local_members(devices, options) as members:
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
    told: dict[str, None] = {}
    for member in members:
        tell_of_gpu(member.environment, lambda what: told.setdefault(what))
    for notice in told:
        reporter.skipped(notice)
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
    for kind, own in _by_kind(members).items():
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


def _by_kind(members: Sequence[Member]) -> dict[Kind, list[Member]]:
    """Devices that share their tables.

    Raises:
        InputError: the tables of two kinds would be one file.
    """
    kinds: dict[Kind, list[Member]] = {}
    for member in members:
        kinds.setdefault(member.kind, []).append(member)
    by_name: dict[str, Member] = {}
    for own in kinds.values():
        member = own[0]
        other = by_name.setdefault(member.environment.device_name, member)
        if other is not member:
            raise InputError(
                f"{other.name} and {member.name} are both called {member.environment.device_name} "
                f"and are not alike: {_difference(other, member)}",
                remedy="tune them in runs of their own, each with its own --out",
            )
    return kinds


def _difference(one: Member, other: Member) -> str:
    """In what two devices of one name differ, in words."""
    mine, theirs = one.environment, other.environment
    fields = ("compute_capability", "sm_count", "locked_sm_clock_mhz", "software", "kernels")
    for field in fields:
        here, there = getattr(mine, field), getattr(theirs, field)
        if here != there:
            return f"{field} is {here} and {there}"
    return "their software differs"


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
    return opened_journal(options.study_folder, job, environment, notice)
