"""One run: what it was asked, a worker or a recording, and a campaign over the table jobs."""

__all__ = ["rechecked", "run"]

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from mla_tune.errors import InputError
from mla_tune.files.own_file import open_own
from mla_tune.measuring.bench import Bench
from mla_tune.measuring.recording import RecordedBench, Recorder, Recording, RecordingFile
from mla_tune.measuring.worker_client import WorkerBench
from mla_tune.shapes.file import ShapesFile
from mla_tune.table import TableFile
from mla_tune.tuning.asked_shapes import asked_shapes
from mla_tune.tuning.campaign import Campaign
from mla_tune.tuning.device_bench import alone, scratch_worker, tell_of_gpu, worker_for
from mla_tune.tuning.graph_cases import graph_cases
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.planner import Planner
from mla_tune.tuning.recheck import Recheck, recheck
from mla_tune.tuning.recorded_jobs import recorded_jobs
from mla_tune.tuning.reporters import Reporter
from mla_tune.tuning.result import TuneResult
from mla_tune.tuning.run_folders import check_output
from mla_tune.tuning.run_on_several import run_on_several
from mla_tune.tuning.run_options import RunOptions
from mla_tune.tuning.run_settings import check_folders, own_part, settings_for

RECORDED = "RECORDED"


def run(options: RunOptions, reporter: Reporter) -> TuneResult:
    """Tune, and return what was decided and what could not be.

    Raises:
        InputError: anything that can be known to be wrong before measuring.
        EnvironmentFailure: the machine, the disk or the device failed.
    """
    if options.recording is not None or RECORDED in options.backends:
        return _run_recorded(options, reporter)
    shapes = asked_shapes(options, reporter.skipped)
    for notice in shapes.notices:
        reporter.skipped(notice)
    if options.devices or options.ray or options.database:
        return run_on_several(shapes, options, reporter)
    with _kept_samples(options, reporter) as kept, worker_for(options) as worker:
        _check_before_waiting(worker, shapes, options)
        with alone(worker, reporter.skipped, wait=options.wait):
            # Not before: a run that has the device may be writing to it.
            os.close(open_own(worker.log, os.O_WRONLY | os.O_TRUNC))
            tell_of_gpu(worker.environment, reporter.skipped)
            bench: Bench = worker
            planner = _planner(worker, shapes, options, reporter)
            jobs = planner.jobs(options.backends)
            if kept is not None:
                bench = Recorder(worker, kept, options.record_rounds)
            return _tuned(bench, jobs, options, reporter, worker.clock.now)


@contextmanager
def _kept_samples(options: RunOptions, reporter: Reporter) -> Iterator[RecordingFile | None]:
    """The file of ``--record``, taken up where an earlier run left it."""
    if options.record is None:
        yield None
        return
    with closing(RecordingFile(options.record)) as file:
        if file.earlier is not None:
            for notice in file.earlier.notices:
                reporter.skipped(notice)
        yield file


def _check_before_waiting(worker: WorkerBench, shapes: ShapesFile, options: RunOptions) -> None:
    """Refuse what is wrong before waiting for the device, which another run may have for hours.

    Raises:
        InputError: the output folder, a backend, or nothing to tune.
    """
    check_output(options.out)
    plentiful, unheard = sys.maxsize, lambda _what: None
    planner = Planner(
        *(worker.environment, worker.device, plentiful, shapes, options.out, unheard),
        served=options.served_lengths,
    )
    planner.jobs(options.backends)


def _planner(
    worker: WorkerBench, shapes: ShapesFile, options: RunOptions, reporter: Reporter
) -> Planner:
    free_bytes = worker.free_bytes()
    return Planner(
        *(worker.environment, worker.device, free_bytes, shapes, options.out, reporter.skipped),
        launches=options.launches,
        served=options.served_lengths,
    )


def _run_recorded(options: RunOptions, reporter: Reporter) -> TuneResult:
    """Tune from a recording: no device, no backend, the same search and verdicts."""
    if options.recording is None or set(options.backends) != {RECORDED}:
        raise InputError(
            "a recording is played back by --backend RECORDED --recording FILE, both or neither"
        )
    recording = Recording.load(options.recording)
    for notice in recording.notices:
        reporter.skipped(notice)
    jobs = recorded_jobs(recording, options.out)
    if options.shapes is not None:
        shapes = asked_shapes(options, reporter.skipped)
        cases = (*shapes.cases, *graph_cases(shapes, recording.environment))
        wanted = {case.shape for case in cases}
        jobs = [job.only(wanted) for job in jobs]
    return _tuned(RecordedBench(recording), jobs, options, reporter)


def _tuned(
    bench: Bench,
    jobs: Sequence[TableJob],
    options: RunOptions,
    reporter: Reporter,
    clock: Callable[[], float] = time.monotonic,
) -> TuneResult:
    check_folders(options, reporter.skipped)
    jobs = own_part(jobs, options, reporter.skipped)
    settings = settings_for(options, bench.environment)
    campaign = Campaign(
        *(bench, options.study_folder, settings, reporter, options.replace, clock),
        again=options.again,
    )
    return campaign.run(jobs)


def rechecked(
    tables: Sequence[Path], device: str, rounds: int, notice: Callable[[str], None], *, wait: bool
) -> Iterator[tuple[Path, Recheck]]:
    """Measure the published plans of ``tables`` again, in one worker.

    Args:
        tables: their files.
        device: where to measure.
        rounds: samples of each plan.
        notice: told what a reader should know.
        wait: whether to wait for a device that another run has.

    Raises:
        InputError: not a table, one for another device, or the device is in use.
    """
    files = [TableFile.load(table) for table in tables]
    with scratch_worker(device) as worker, alone(worker, notice, wait=wait):
        for table, file in zip(tables, files, strict=True):
            for result in recheck(worker, file, worker.device, rounds):
                yield table, result
