"""Devices that are tables of latencies, side by side at the work of one run."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from fake_device import DEFAULT, ENVIRONMENT, BiasedBench, splits, workload
from mla_tune.errors import DeviceLost
from mla_tune.measuring.worker_client import Stopped
from mla_tune.session import Setup
from mla_tune.shapes import MlaDimensions
from mla_tune.table import Header, TableFile
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.pool.campaign import PoolCampaign
from mla_tune.tuning.pool.member import Member
from mla_tune.tuning.reporters import SilentReporter
from mla_tune.tuning.result import TuneResult
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.table_start import opened_journal

LATENCIES = {DEFAULT: 100.0, splits(1): 150.0, splits(2): 90.0, splits(8): 70.0}
SPECS = tuple(f"{count}q1s{kv}" for count in (2, 8) for kv in ("1k", "2k", "4k"))
OTHER_KIND = replace(ENVIRONMENT, device_name="Other Device")


class Keeper(SilentReporter):
    """Keeps what it is told, by device."""

    def __init__(self):
        self.decisions = []
        self.notices = []
        self.errors = []

    def decided(self, job, workload, entry):
        del job
        self.decisions.append((str(workload), entry.plan))

    def skipped(self, what):
        self.notices.append(what)

    def failed(self, job, workload, error):
        del job
        self.errors.append((str(workload), error))


class FakeGpu(BiasedBench):
    """A device of several: it can be lost, and knows of what it did, by process."""

    clock = SimpleNamespace(now=lambda: 0.0)
    lost_after: int | None = None
    is_stopped = False

    def __post_init__(self):
        super().__post_init__()
        self.asked = 0
        self.opened = []
        self.tuned = []

    def device_identity(self):
        return self.device

    def stop(self):
        self.is_stopped = True

    def open(self, setup):
        self._ask()
        super().open(setup)
        self.opened.append(setup.model.num_q_heads)

    def race(self, plans, rounds, seed, cases=None):
        self._ask()
        self.tuned.append((self.process, self.setup.model.num_q_heads, self._key, tuple(plans)))
        return super().race(plans, rounds, seed, cases)

    def _ask(self):
        if self.is_stopped:
            raise Stopped
        self.asked += 1
        if self.lost_after is not None and self.asked > self.lost_after:
            raise DeviceLost(f"{self.device} has fallen off the bus")


def gpu(number: int, environment=ENVIRONMENT, latencies=LATENCIES, **more) -> FakeGpu:
    given = {"noise": 0.01, "bias": 0.003, "seed": number, "device": f"cuda:{number}"}
    return FakeGpu(latencies, environment=environment, **(given | more))


def members(*gpus: FakeGpu) -> list[Member]:
    return [Member(bench.device, bench, f"card{bench.device[-1]}") for bench in gpus]


def jobs(folder: Path, environment=ENVIRONMENT, heads=(2, 4), specs=SPECS) -> list[TableJob]:
    found = []
    for count in heads:
        model = MlaDimensions(count)
        header = Header.of(environment, "TORCH_MLA", model, "auto", "eager", 4096)
        path = folder / f"{environment.device_name.split()[0]}-heads={count}.yaml"
        workloads = tuple(map(workload, specs))
        found.append(TableJob(Setup("TORCH_MLA", model), workloads, header, path))
    return found


def run(folder: Path, *gpus: FakeGpu, own=None, processes=3, **more) -> tuple[TuneResult, Keeper]:
    """Tune the jobs of every kind among ``gpus``."""
    crew = members(*gpus)
    environments = {member.kind: member.environment for member in crew}
    reporter = Keeper()
    campaign = PoolCampaign(
        members=crew,
        journals=partial(journal, folder),
        study_dir=folder / "study",
        settings=Settings(confirmation_rounds=16, confirmation_s=600.0, processes=processes),
        reporter=reporter,
        **more,
    )
    result = campaign.run(
        {kind: own or jobs(folder, found) for kind, found in environments.items()}
    )
    return result, reporter


def journal(folder, job, environment):
    return opened_journal(folder / "study", job, environment, lambda _what: None)


def plans(folder: Path) -> dict:
    """What each table says of each shape."""
    return {
        (path.stem, entry.shape): (entry.plan, entry.processes)
        for path in folder.glob("*.yaml")
        for entry in TableFile.load(path).entries
    }


def screened(bench: FakeGpu) -> list:
    """(heads, shape, plan) of each trial of ``bench`` but the defaults', as sentinels are too."""
    seen = dict.fromkeys(
        (heads, key, raced[-1])
        for process, heads, key, raced in bench.tuned
        if process == 0 and len(raced) == 2
    )
    return list(seen)


def shapes_of(bench: FakeGpu, process=None) -> set:
    """(heads, shape) of all that ``bench`` raced with another plan than the default alone."""
    return {
        (heads, key)
        for number, heads, key, raced in bench.tuned
        if len(raced) > 1 and (process is None or number == process)
    }
