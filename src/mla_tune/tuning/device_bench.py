"""The worker of a run: started on its device, alone on it, and ended with the run."""

__all__ = [
    "alone",
    "found_environment",
    "scratch_worker",
    "started_worker",
    "tell_of_gpu",
    "worker_for",
]

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mla_tune.device.lock import Holder, device_lock, lock_folder
from mla_tune.environment import Environment
from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.measuring.worker_client import Limits, WorkerBench
from mla_tune.tuning.run_folders import worker_log
from mla_tune.tuning.run_options import RunOptions


def started_worker(device: str, options: RunOptions, log: str = "worker.log") -> WorkerBench:
    """A worker of a run, on ``device``; its log, of the name given, stands in the study folder."""
    limits = Limits(sample_s=options.sample_timeout, warm_up_s=options.plan_timeout)
    return WorkerBench(device, worker_log(options.study_folder, log), limits)


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
        notice(f"{what}; waiting for it to end")
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
