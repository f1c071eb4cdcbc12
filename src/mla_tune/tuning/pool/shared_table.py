"""One table job that several devices work at."""

__all__ = ["SharedTable", "Unit"]

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mla_tune.errors import MlaTuneError
from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.table.between import Between
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.launches import Launches
from mla_tune.tuning.nominee import Nominee
from mla_tune.tuning.other_processes import spread_over
from mla_tune.tuning.pool.member import Kind, Member
from mla_tune.tuning.publishing import Publishing
from mla_tune.tuning.quarantine import Ward
from mla_tune.tuning.study import Journal
from mla_tune.tuning.tally import Tally
from mla_tune.tuning.workload_cost import cost_of


@dataclass(frozen=True, eq=False)
class Unit:
    """A workload of a table, to be tuned whole on one device.

    Attributes:
        table: whose.
        workload: which.
        cost: how long it may take, on a scale of its own.
    """

    table: "SharedTable"
    workload: Workload
    cost: float

    @property
    def key(self) -> str:
        """The same in every run that shares the studies."""
        return f"{self.table.name}/{self.workload.measured_key}"


@dataclass(eq=False)
class SharedTable:
    """What the devices of a run share of one table; its methods may be called by all of them.

    Args:
        job: what to tune.
        kind: of the devices that can.
        journal, ward: where trials are kept, and what plans are quarantined for.
        previous: the entries of the table that is there, by shape.
        tally: takes what becomes of each workload.
    """

    job: TableJob
    kind: Kind
    journal: Journal
    ward: Ward
    previous: Mapping[str, Entry]
    tally: Tally
    nominees: dict[Unit, tuple[Member, Nominee]] = field(default_factory=dict, init=False)
    cannot_open: dict[Member, MlaTuneError] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._publishing = Publishing(self.job, self.tally)
        self._lock = threading.Lock()
        self._launches: Launches | None = None
        self._searching = threading.Lock()

    @property
    def name(self) -> str:
        """Of its studies: the same in every run for this table with this software."""
        return f"{self.job.path.stem}.{self.ward.software_digest}"

    @property
    def has_work(self) -> bool:
        """Whether anything is left to be measured, as far as its studies tell by themselves."""
        decided = self.journal.with_verdict()
        return not all(workload.measured_key in decided for workload in self.job.workloads)

    def units(self) -> list[Unit]:
        """Its workloads, in the order of the job."""
        return [
            Unit(self, workload, cost_of(workload, self.previous.get(str(workload))))
            for workload in self.job.workloads
        ]

    def launches(self, search: Callable[[], Launches]) -> Launches:
        """What `launches_for` says: the first device searches, and the others wait for it."""
        with self._searching:
            if self._launches is None:
                self._launches = search()
            return self._launches

    def publish(self, entry: Entry) -> None:
        """Take a decided entry, to be written when writing is due."""
        with self._lock:
            self._publishing.add(entry)

    def nominate(self, unit: Unit, member: Member, nominee: Nominee) -> None:
        """Keep a nominee until ``member`` has raced it in other processes."""
        with self._lock:
            self.nominees[unit] = member, nominee

    def model(self, model: Between | None) -> None:
        """Have ``model`` written with the last entries."""
        self._publishing.model = model

    def spread(self) -> float:
        """How far processes lie apart, over the nominees of all devices."""
        return spread_over([nominee for _, nominee in self.nominees.values()])

    def given_up(self, units: list[Unit], error: MlaTuneError) -> None:
        """Note that ``units`` are left untuned."""
        if units:
            self.tally.given_up(self.job, [unit.workload for unit in units], error)

    def finish(self) -> None:
        """Write what waits."""
        with self._lock:
            self._publishing.finish()

    def close(self) -> None:
        """Write what waits, and let other runs have the journal."""
        self.journal.close()
        self.finish()
