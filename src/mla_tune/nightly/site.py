"""Where a night measures: a device, or a recording that is played back."""

__all__ = ["DeviceSite", "RecordedSite", "Site"]

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from mla_tune.device.card import card_hash
from mla_tune.errors import UnavailableError
from mla_tune.measuring.bench import Bench
from mla_tune.measuring.recording import RecordedBench, Recording
from mla_tune.nightly.table_job import job_of
from mla_tune.table import TableFile
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.pool.kinds import by_kind
from mla_tune.tuning.pool.member import Member
from mla_tune.tuning.recorded_jobs import recorded_jobs


class Site(Protocol):
    """Where a night measures.

    Attributes:
        name: what it is called in what the night prints, such as ``cuda:1``.
        bench: what measures.
        card: its device, as `card_hash` names it.
        thread: in which the bench is asked.
    """

    @property
    def name(self) -> str: ...
    @property
    def bench(self) -> Bench: ...
    @property
    def card(self) -> str: ...
    @property
    def thread(self) -> ThreadPoolExecutor: ...

    def job(self, file: TableFile, folder: Path) -> TableJob:
        """The job of tuning the shapes of a table here, for a table in ``folder``.

        Raises:
            UnavailableError: they cannot be measured here.
            InputError: the table's entries contradict themselves.
        """
        ...

    def seconds(self) -> float:
        """How long this has been measuring, from any start."""
        ...

    def stop(self) -> None:
        """End what is being measured, from another thread than the one that waits for it."""
        ...


class DeviceSite:
    """A device of this host or of a cluster.

    Args:
        member: the device.
        free_bytes: of its memory, those that a table's shapes may count on.
    """

    def __init__(self, member: Member, free_bytes: int) -> None:
        self.name, self.bench, self.card = member.name, member.bench, member.card
        self.thread = member.thread
        self._free_bytes = free_bytes

    @classmethod
    def of(cls, members: Sequence[Member]) -> "Iterator[DeviceSite]":
        """One for each device; those of a kind take what fits on all of them.

        Raises:
            InputError: as of `by_kind`.
        """
        for own in by_kind(members).values():
            free_bytes = min(member.bench.free_bytes() for member in own)
            yield from (cls(member, free_bytes) for member in own)

    def job(self, file: TableFile, folder: Path) -> TableJob:
        """As `Site.job`."""
        bench = self.bench
        return job_of(file, bench.environment, bench.device, self._free_bytes, folder)

    def seconds(self) -> float:
        """As `Site.seconds`, without the time for which the run was suspended."""
        return self.bench.clock.now()

    def stop(self) -> None:
        """As `Site.stop`."""
        self.bench.stop()


class RecordedSite:
    """A recording, for the tables that it has samples of."""

    name = "recording"

    def __init__(self, recording: Recording, seed: int = 0) -> None:
        self.recording = recording
        self.bench: Bench = RecordedBench(recording, seed)
        self.card = card_hash("recording")
        self.thread = ThreadPoolExecutor(1)

    def job(self, file: TableFile, folder: Path) -> TableJob:
        """As `Site.job`."""
        wanted = {entry.shape for entry in file.entries}
        header = file.header
        for job in recorded_jobs(self.recording, folder):
            here = job.header
            if (here.backend, here.model, here.kv_cache_dtype, here.engine.mode) == (
                *(header.backend, header.model, header.kv_cache_dtype, header.engine.mode),
            ):
                found = [each for each in job.workloads if str(each) in wanted]
                if found:
                    return TableJob(job.setup, tuple(found), here, job.path)
        raise UnavailableError(f"{header.backend}: not in the recording {self.recording.path}")

    def seconds(self) -> float:
        """As `Site.seconds`."""
        return time.monotonic()

    def stop(self) -> None:
        """As `Site.stop`; playing a batch shape back takes no time to speak of."""
