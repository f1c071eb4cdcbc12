"""The GPUs of this host as the devices of one run."""

__all__ = ["all_alone", "asked_devices", "empty_logs", "local_members"]

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from mla_tune.device.card import card_hash
from mla_tune.device.choice import resolved_devices
from mla_tune.files.own_file import open_own
from mla_tune.measuring.worker_client import WorkerBench
from mla_tune.tuning.device_bench import alone, started_worker
from mla_tune.tuning.pool.member import Member
from mla_tune.tuning.run_options import RunOptions


def asked_devices(options: RunOptions) -> tuple[str, ...]:
    """The devices of this host that a run is to have, one unless it says otherwise.

    Raises:
        InputError: as of `resolved_devices`.
    """
    return (options.device,) if options.devices is None else resolved_devices(options.devices)


@contextmanager
def local_members(devices: Sequence[str], options: RunOptions) -> Iterator[list[Member]]:
    """A worker on each of ``devices``, started side by side, and ended with the run.

    Raises:
        InputError: a device is not there.
        EnvironmentFailure: a device cannot be used.
    """
    with ExitStack() as stack:
        threads = [ThreadPoolExecutor(1, thread_name_prefix=name) for name in devices]
        for thread in threads:
            stack.callback(thread.shutdown)
        starts = [
            thread.submit(_started, name, options, len(devices), stack)
            for thread, name in zip(threads, devices, strict=True)
        ]
        workers = [start.result() for start in starts]
        yield [
            Member(worker.device, worker, card_hash(worker.device_identity()), thread=thread)
            for worker, thread in zip(workers, threads, strict=True)
        ]


def _started(name: str, options: RunOptions, devices: int, stack: ExitStack) -> WorkerBench:
    worker = started_worker(name, options, f"worker-{name.replace(':', '-')}.log", devices)
    stack.callback(worker.close)
    return worker


@contextmanager
def all_alone(
    members: Sequence[Member], notice: Callable[[str], None], *, wait: bool
) -> Iterator[None]:
    """Hold the devices of all ``members``: two runs on one would measure each other.

    In an order that is the same for all runs, so that two that wait do not wait for each other.

    Raises:
        InputError: another run has one of them, and this one is not to wait.
    """
    with ExitStack() as stack:
        for worker in _workers(sorted(members, key=lambda member: member.card)):
            stack.enter_context(alone(worker, notice, wait=wait))
        yield


def empty_logs(members: Sequence[Member]) -> None:
    """Begin the workers' logs anew; not before the run has the devices, as others write to them."""
    for worker in _workers(members):
        os.close(open_own(worker.log, os.O_WRONLY | os.O_TRUNC))


def _workers(members: Sequence[Member]) -> Iterator[WorkerBench]:
    for member in members:
        assert isinstance(member.bench, WorkerBench), "it is on this host"
        yield member.bench
