"""What a run would do, as far as it can be known without a measurement."""

__all__ = ["PlannedTable", "estimated_seconds", "planned_tables"]

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mla_tune.device.choice import resolved_devices
from mla_tune.environment import Environment
from mla_tune.errors import InputError
from mla_tune.measuring.recording import Recording
from mla_tune.registry import BACKENDS
from mla_tune.shapes import Workload
from mla_tune.tuning.asked_shapes import asked_shapes
from mla_tune.tuning.device_bench import scratch_worker
from mla_tune.tuning.existing_table import check_table
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.journal.watched import WatchedJournal
from mla_tune.tuning.planner import Planner
from mla_tune.tuning.recorded_jobs import recorded_jobs
from mla_tune.tuning.run_folders import check_without_making
from mla_tune.tuning.run_options import RunOptions
from mla_tune.tuning.run_settings import own_part
from mla_tune.tuning.study import Journal, Subject
from mla_tune.tuning.table_start import journal_path

FIRST_PROCESS_S = 5.3
"""Seconds a batch shape takes where none of the table has been measured: on an H100 51 graph sizes
of TRITON_MLA took 270 s."""
EACH_OTHER = 0.3
"""What each further process takes beside the first: 80 s there."""
VLLM_START_S = 30.0
START_S = 3.0
"""What a process takes to import vLLM, or PyTorch alone."""


@dataclass(frozen=True)
class PlannedTable:
    """One table of a run that has not begun.

    Attributes:
        job: the table, and all its workloads.
        decided: those that the studies have a verdict of.
        shape_s: about how long one takes in its first process: the median of those that were
            measured on this device, `FIRST_PROCESS_S` where there are none.
        is_known: whether ``shape_s`` was measured.
        problem: why nothing can be added to the table, or empty.
    """

    job: TableJob
    decided: tuple[Workload, ...]
    shape_s: float = FIRST_PROCESS_S
    is_known: bool = False
    problem: str = ""

    @property
    def left(self) -> tuple[Workload, ...]:
        """What would be measured."""
        return tuple(workload for workload in self.job.workloads if workload not in self.decided)


def planned_tables(options: RunOptions, notice: Callable[[str], None]) -> list[PlannedTable]:
    """The tables of a run with ``options``. Nothing is measured, written or locked.

    A process of its own looks at the device. The terms of a verdict are not compared: one of
    another gate or weights counts as decided here, and is confirmed again by the run.

    Args:
        options: of the run.
        notice: told of what would be left out.

    Raises:
        InputError: what the run would refuse.
    """
    for option, given in (("--ray", options.ray), ("a database", options.database)):
        if given is not None:
            raise InputError(
                f"--dry-run and {option} cannot be given together",
                remedy="--dry-run looks at this host and a folder of studies",
            )
    check_without_making(options.out, "--out")
    check_without_making(options.study_folder, "--study-dir")
    if options.recording is not None:
        recording = Recording.load(options.recording)
        jobs: Sequence[TableJob] = recorded_jobs(recording, options.out)
        environment = recording.environment
    else:
        environment, jobs = _jobs_here(options, notice)
    return [_planned(job, environment, options) for job in own_part(jobs, options, notice)]


def _jobs_here(
    options: RunOptions, notice: Callable[[str], None]
) -> tuple[Environment, list[TableJob]]:
    shapes = asked_shapes(options, notice)
    for told in shapes.notices:
        notice(told)
    device = options.device if options.devices is None else resolved_devices(options.devices)[0]
    with scratch_worker(device) as worker:
        planner = Planner(
            *(worker.environment, worker.device, worker.free_bytes(), shapes, options.out, notice),
            launches=options.launches,
            served=options.served_lengths,
        )
        return worker.environment, planner.jobs(options.backends)


def _planned(job: TableJob, environment: Environment, options: RunOptions) -> PlannedTable:
    problem = ""
    if not options.replace:
        try:
            check_table(job)
        except InputError as error:
            problem = error.what
    path = journal_path(options.study_folder, job, environment)
    verdicts = _verdicts(path, Subject.of(job.header, environment.software_digest))
    known = [float(seconds) for each in verdicts.values() if (seconds := each.get("seconds"))]
    found = () if options.again else verdicts
    return PlannedTable(
        job,
        tuple(workload for workload in job.workloads if workload.measured_key in found),
        statistics.median(known) if known else FIRST_PROCESS_S,
        bool(known),
        problem,
    )


def _verdicts(path: Path, subject: Subject) -> Mapping[str, Mapping[str, Any]]:
    return Journal.over(WatchedJournal(path).storage, subject).verdicts() if path.exists() else {}


def estimated_seconds(tables: Sequence[PlannedTable], options: RunOptions) -> float:
    """About how long the run takes; 0 where nothing is left, or a recording is played back."""
    if options.recording is not None or not any(table.left for table in tables):
        return 0.0
    devices = 1 if options.devices is None else len(resolved_devices(options.devices))
    measured_s = sum(len(table.left) * table.shape_s for table in tables if not table.problem)
    starts = (
        VLLM_START_S if BACKENDS[table.job.setup.backend].is_vllm else START_S for table in tables
    )
    others = options.processes - 1
    return max(starts) * options.processes + measured_s * (1 + EACH_OTHER * others) / devices
