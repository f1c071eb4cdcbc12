"""One run: the shapes as the flags cut them, a worker, a campaign."""

__all__ = ["found_environment", "rechecked", "run"]

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from mla_tune.device.lock import Holder, device_lock, lock_folder
from mla_tune.environment import Environment
from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.files.own_file import open_own
from mla_tune.measuring.bench import Bench
from mla_tune.measuring.recording import RecordedBench, Recorder, Recording, RecordingFile
from mla_tune.measuring.worker_client import Limits, WorkerBench
from mla_tune.shapes import BatchShape
from mla_tune.shapes.file import ShapesFile, checked_shapes, load_shapes
from mla_tune.shapes.mapping import MappingDocument
from mla_tune.table import TableFile
from mla_tune.tuning.assignment import (
    Assignment,
    Planner,
    check_output,
    recorded_assignments,
    shipped_folder_notice,
)
from mla_tune.tuning.campaign import Campaign, Reporter
from mla_tune.tuning.graph_cases import graph_cases
from mla_tune.tuning.recheck import Recheck, recheck
from mla_tune.tuning.result import TunedTable, TuneResult
from mla_tune.tuning.run_options import RunOptions
from mla_tune.tuning.settings import Settings

RECORDED = "RECORDED"

# A process's memory and cores on a CPU move a median by up to 4 % from one run to the next, so a
# gain below that would not survive a second look.
MIN_SPEEDUP = 1.01
MIN_SPEEDUP_ON_CPU = 1.05


def run(options: RunOptions, reporter: Reporter) -> TuneResult:
    """Tune, and return what was decided and what could not be.

    Raises:
        InputError: anything that can be known to be wrong before measuring.
        EnvironmentFailure: the machine, the disk or the device failed.
    """
    if options.recording is not None or RECORDED in options.backends:
        return _run_recorded(options, reporter)
    shapes = cut(_shapes_of(options), options, reporter)
    for notice in shapes.notices:
        reporter.skipped(notice)
    with _kept_samples(options, reporter) as kept, _worker(options) as worker:
        _check_before_waiting(worker, shapes, options)
        with _alone(worker, reporter.skipped, wait=options.wait):
            # Not before: a run that has the device may be writing to it.
            os.close(open_own(worker.log, os.O_WRONLY | os.O_TRUNC))
            _tell_of_gpu(worker.environment, reporter)
            bench: Bench = worker
            planner = _planner(worker, shapes, options, reporter)
            assignments = planner.assignments(options.backends)
            if kept is not None:
                bench = Recorder(worker, kept, options.record_rounds)
            return _tuned(bench, assignments, options, reporter, worker.clock.now)


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


@contextmanager
def _worker(options: RunOptions) -> Iterator[WorkerBench]:
    limits = Limits(sample_s=options.sample_timeout, warm_up_s=options.plan_timeout)
    worker = WorkerBench(options.device, _worker_log(options.study_folder), limits)
    try:
        yield worker
    finally:
        worker.close()


def _tell_of_gpu(environment: Environment, reporter: Reporter) -> None:
    """Say once what the tables' headers say: a clock that is locked, a driver that is silent."""
    locked_mhz = environment.locked_sm_clock_mhz
    if locked_mhz is not None:
        reporter.skipped(f"the SM clock is locked at {locked_mhz} MHz: the tables are for that")
    if environment.unwatched is not None:
        reporter.skipped(f"not watched here: {environment.unwatched}")


@contextmanager
def _alone(worker: WorkerBench, notice: Callable[[str], None], *, wait: bool) -> Iterator[None]:
    """Hold the worker's device: two runs on one would measure each other.

    Raises:
        InputError: another run has it, and this one is not to wait.
    """

    def busy(holder: Holder) -> None:
        what = f"{worker.device} is in use by another run: {holder}"
        if not wait:
            raise InputError(what, remedy="--wait waits for it to end; --device names another")
        notice(f"{what}; waiting for it to end")
        worker.close()  # it holds some of the device's memory; the next question starts another

    with device_lock(worker.device_identity(), lock_folder(), busy, notice):
        yield


def _check_before_waiting(worker: WorkerBench, shapes: ShapesFile, options: RunOptions) -> None:
    """Refuse what is wrong whoever has the device: it may be hours before it is this run's.

    Raises:
        InputError: the output folder, a backend, or nothing to tune.
    """
    check_output(options.out)
    plentiful, unheard = sys.maxsize, lambda _what: None
    planner = Planner(worker.environment, worker.device, plentiful, shapes, options.out, unheard)
    planner.assignments(options.backends)


def _planner(
    worker: WorkerBench, shapes: ShapesFile, options: RunOptions, reporter: Reporter
) -> Planner:
    free_bytes = worker.free_bytes()
    return Planner(
        worker.environment, worker.device, free_bytes, shapes, options.out, reporter.skipped
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
    assignments = recorded_assignments(recording, options.out)
    if options.shapes is not None:
        shapes = cut(_shapes_of(options), options, reporter)
        cases = (*shapes.cases, *graph_cases(shapes, recording.environment))
        wanted = {case.shape for case in cases}
        assignments = [only(assignment, wanted) for assignment in assignments]
    return _tuned(RecordedBench(recording), assignments, options, reporter)


def only(assignment: Assignment, wanted: set[BatchShape]) -> Assignment:
    """Keep the workloads of an assignment that have a shape among ``wanted``."""
    kept = tuple(w for w in assignment.workloads if wanted.intersection(w.shapes))
    return replace(assignment, workloads=kept)


def _tuned(
    bench: Bench,
    assignments: list[Assignment],
    options: RunOptions,
    reporter: Reporter,
    clock: Callable[[], float] = time.monotonic,
) -> TuneResult:
    check_output(options.out)
    _check_study_folder(options.study_folder)
    if notice := shipped_folder_notice(options.out):
        reporter.skipped(notice)
    gate = MIN_SPEEDUP if bench.environment.is_cuda else MIN_SPEEDUP_ON_CPU
    settings = Settings(
        min_speedup=options.min_speedup or gate, confirmation_s=options.confirm_seconds
    )
    campaign = Campaign(bench, options.study_folder, settings, reporter, options.replace, clock)
    campaign.run(assignments)
    tables = (TunedTable(path, tuple(found)) for path, found in campaign.published.items())
    return TuneResult(tuple(tables), tuple(campaign.failures))


def _shapes_of(options: RunOptions) -> ShapesFile:
    if options.shapes is None:
        raise InputError("--shapes FILE is missing", remedy="'mla-tune --help' shows an example")
    if isinstance(options.shapes, Path):
        return load_shapes(options.shapes)
    return checked_shapes(MappingDocument.of(options.shapes))


def _check_study_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"study folder {folder} cannot be made: {error.strerror or error}",
            remedy="choose another with --study-dir",
        ) from None


def _worker_log(folder: Path) -> Path:
    _check_study_folder(folder)
    try:
        log = folder / "worker.log"
        os.close(open_own(log, os.O_WRONLY))
    except OSError as error:
        raise InputError(
            f"study folder {folder} cannot be written: {error.strerror or error}",
            remedy="choose another with --study-dir",
        ) from None
    return log


def cut(shapes: ShapesFile, options: RunOptions, reporter: Reporter) -> ShapesFile:
    """Apply --max-tokens and --tensor-parallel-size.

    Raises:
        InputError: nothing is left, or the heads do not divide.
    """
    if options.tensor_parallel_size:
        whole = shapes.whole_model
        models = tuple(whole.sharded(size) for size in options.tensor_parallel_size)
        shapes = replace(shapes, models=tuple(dict.fromkeys(models)))
    if options.max_tokens is None:
        return shapes
    kept = [case for case in shapes.cases if case.shape.num_kv_tokens <= options.max_tokens]
    dropped = len(shapes.cases) - len(kept)
    if not kept and shapes.graph is None:
        smallest = min(case.shape.num_kv_tokens for case in shapes.cases)
        raise InputError(
            f"--max-tokens {options.max_tokens} leaves no shape of {shapes.path}",
            valid=f"{smallest} or more for this file",
        )
    if dropped:
        reporter.skipped(f"--max-tokens {options.max_tokens}: {dropped} larger shapes left out")
    return replace(shapes, cases=tuple(kept), max_tokens=options.max_tokens)


@contextmanager
def _scratch_worker(device: str) -> Iterator[WorkerBench]:
    """A worker whose log nobody will look for.

    Raises:
        EnvironmentFailure: there is no place for temporary files.
    """
    try:
        folder = tempfile.TemporaryDirectory()
    except OSError as error:
        raise EnvironmentFailure(
            f"there is no folder for temporary files: {error.strerror or error}",
            remedy="set TMPDIR to a folder that can be written",
        ) from None
    with folder as scratch:
        worker = WorkerBench(device, Path(scratch) / "worker.log")
        try:
            yield worker
        finally:
            worker.close()


def found_environment(device: str) -> Environment:
    """Look at a device from a process of its own, so that this one holds no CUDA context."""
    with _scratch_worker(device) as worker:
        return worker.environment


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
    with _scratch_worker(device) as worker, _alone(worker, notice, wait=wait):
        for table, file in zip(tables, files, strict=True):
            for result in recheck(worker, file, worker.device, rounds):
                yield table, result
