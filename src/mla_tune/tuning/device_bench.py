"""The worker of a run: started on its device, alone on it, and ended with the run."""

__all__ = [
    "WAITING",
    "alone",
    "found_environment",
    "scratch_worker",
    "started_worker",
    "tell_of_gpu",
    "worker_for",
]

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from mla_tune.device.lock import Holder, device_lock, lock_folder
from mla_tune.environment import Environment
from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.measuring.worker_client import Limits, WorkerBench
from mla_tune.tuning.run_folders import worker_log
from mla_tune.tuning.run_options import RunOptions

WAITING = "waiting for it to end"
"""Ends the notice that another run has the device."""

CORES_EACH = 6
BYTES_EACH = 6 << 30
"""Of a host for each process that waits: it imports on one core, beside a worker and a compiler
that do the same, and keeps about 2 GiB. With fewer, processes start one after the other."""


def started_worker(
    device: str, options: RunOptions, log: str = "worker.log", side_by_side: int = 1
) -> WorkerBench:
    """A worker of a run.

    Args:
        device: where.
        options: of the run.
        log: the name of its log, which stands in the study folder.
        side_by_side: how many devices of this host the run has.
    """
    limits = Limits(sample_s=options.sample_timeout, warm_up_s=options.plan_timeout)
    renewals = min(options.processes - 1, _room_for_spares() // side_by_side)
    path = worker_log(options.study_folder, log)
    return WorkerBench(device, path, limits, renewals=renewals)


def _room_for_spares() -> int:
    """How many processes may wait with vLLM imported, by this host's cores and free memory."""
    cores, free_bytes = len(os.sched_getaffinity(0)), psutil.virtual_memory().available
    return min(cores // CORES_EACH, free_bytes // BYTES_EACH)


@contextmanager
def worker_for(options: RunOptions) -> Iterator[WorkerBench]:
    """The worker of a run on one device."""
    worker = started_worker(options.device, options)
    try:
        yield worker
    finally:
        worker.close()


def tell_of_gpu(environment: Environment, notice: Callable[[str], None]) -> None:
    """Say once what the tables' headers say: a clock that is locked, a driver that is silent."""
    locked_mhz = environment.locked_sm_clock_mhz
    if locked_mhz is not None:
        notice(f"the SM clock is locked at {locked_mhz} MHz: the tables are for that")
    if environment.unwatched is not None:
        notice(f"not watched here: {environment.unwatched}")


@contextmanager
def alone(worker: WorkerBench, notice: Callable[[str], None], *, wait: bool) -> Iterator[None]:
    """Hold the worker's device: two runs on one would measure each other.

    Raises:
        InputError: another run has it, and this one is not to wait.
    """

    def busy(holder: Holder) -> None:
        what = f"{worker.device} is in use by another run: {holder}"
        if not wait:
            raise InputError(what, remedy="--wait waits for it to end; --device names another")
        notice(f"{what}; {WAITING}")
        worker.close()  # it holds some of the device's memory; the next question starts another

    with device_lock(worker.device_identity(), lock_folder(), busy, notice):
        yield


@contextmanager
def scratch_worker(device: str, limits: Limits | None = None) -> Iterator[WorkerBench]:
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
        worker = WorkerBench(device, Path(scratch) / "worker.log", limits or Limits())
        try:
            yield worker
        finally:
            worker.close()


def found_environment(device: str) -> Environment:
    """Look at a device from a process of its own, so that this one holds no CUDA context."""
    with scratch_worker(device) as worker:
        return worker.environment
