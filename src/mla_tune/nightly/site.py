"""Where a night measures: a device, or a recording that is played back."""

__all__ = ["DeviceSite", "RecordedSite", "Site"]

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mla_tune.device.card import card_hash
from mla_tune.errors import UnavailableError
from mla_tune.measuring.bench import Bench
from mla_tune.measuring.recording import RecordedBench, Recording
from mla_tune.measuring.worker_client import WorkerBench
from mla_tune.nightly.table_job import job_of
from mla_tune.table import TableFile
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.recorded_jobs import recorded_jobs


class Site(Protocol):
    """Where a night measures.

    Attributes:
        bench: what measures.
        card: its device, as `card_hash` names it.
    """

    @property
    def bench(self) -> Bench: ...
    @property
    def card(self) -> str: ...

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


@dataclass
class DeviceSite:
    """A device, through a worker."""

    bench: WorkerBench
    card: str = field(init=False)

    def __post_init__(self) -> None:
        self.card = card_hash(self.bench.device_identity())

    def job(self, file: TableFile, folder: Path) -> TableJob:
        """As `Site.job`."""
        worker = self.bench
        return job_of(file, worker.environment, worker.device, worker.free_bytes(), folder)

    def seconds(self) -> float:
        """As `Site.seconds`, without the time for which the run was suspended."""
        return self.bench.clock.now()


class RecordedSite:
    """A recording, for the tables that it has samples of."""

    def __init__(self, recording: Recording, seed: int = 0) -> None:
        self.recording = recording
        self.bench: Bench = RecordedBench(recording, seed)
        self.card = card_hash("recording")

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
