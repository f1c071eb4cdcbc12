"""A folder of tables of a fake GPU, and nights on it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from fake_device import DEFAULT, ENVIRONMENT, BiasedBench, splits
from mla_tune.nightly.night import Night
from mla_tune.nightly.served import Served
from mla_tune.nightly.target import targets_in
from mla_tune.session import Setup
from mla_tune.shapes import MlaDimensions, Workload
from mla_tune.table.naming import table_path
from mla_tune.tuning.campaign import Campaign
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.reporters import SilentReporter
from mla_tune.tuning.settings import Settings
from readings import FIRST

GPU = replace(
    ENVIRONMENT,
    device_name="NVIDIA Fake",
    compute_capability="9.0",
    software={"torch": "2.11.0", "driver": "580.1"},
)
LATENCIES = {DEFAULT: 100.0, splits(1): 150.0, splits(2): 80.0, splits(8): 90.0, splits(16): 98.0}
SHAPES = tuple(f"{requests}q1s1k" for requests in range(2, 22))
SETTINGS = Settings(confirmation_s=600.0)


@dataclass
class FakeGpu:
    """A site whose every shape has `LATENCIES`, in samples of its own each night.

    Attributes:
        slower: factors of a plan's latency, by shape.
    """

    seed: int = 0
    environment: object = GPU
    latencies_us: dict = field(default_factory=lambda: LATENCIES)
    slower: dict = field(default_factory=dict)
    faults: dict = field(default_factory=dict)
    card: str = "0a1b2c3d"
    passed_s: float = 0.0
    name: str = "cuda:0"

    def __post_init__(self):
        self.thread = ThreadPoolExecutor(1)
        self.is_stopped = False
        self.bench = _Bench(
            self.latencies_us,
            noise=0.005,
            seed=self.seed,
            bias=0.003,
            environment=self.environment,
            race_faults=self.faults,
        )
        self.bench.slower = self.slower

    def job(self, file, folder: Path) -> TableJob:
        heads = file.header.model["num_q_heads"]
        return job_for(self.environment, folder, heads, [entry.shape for entry in file.entries])

    def seconds(self) -> float:
        return self.passed_s + 0.01 * self.samples

    def stop(self):
        self.is_stopped = True

    @property
    def samples(self) -> int:
        raced = zip(self.bench.raced, self.bench.race_rounds, strict=False)  # another is added
        return sum(rounds * len(plans) for (_, plans), rounds in raced)


class _Bench(BiasedBench):
    """Keeps the first race of each trial, as (heads, shape, plan)."""

    def __post_init__(self):
        super().__post_init__()
        self.tried = []

    def race(self, plans, rounds, seed, cases=None):
        taken = super().race(plans, rounds, seed, cases)
        if (len(plans), rounds) == (2, SETTINGS.screening_rounds):
            self.tried.append((self.setup.model.num_q_heads, self._key, plans[-1]))
        return taken

    def _latency_us(self, plan, shape):
        return super()._latency_us(plan, shape) * self.slower.get((self._key, plan), 1.0)


def job_for(environment, folder: Path, heads: int, shapes) -> TableJob:
    setup = Setup("TORCH_MLA", MlaDimensions(heads))
    workloads = [Workload.parse(shape) for shape in shapes]
    job = TableJob.of(environment, setup, workloads, folder)
    assert job.path == table_path(folder, job.header)
    return job


def tune(site: FakeGpu, folder: Path, heads: int = 2, shapes=SHAPES) -> Path:
    """Tune a table as the main job does; returns its path."""
    job = job_for(site.environment, folder / "tables", heads, shapes)
    job.path.parent.mkdir(exist_ok=True)
    Campaign(site.bench, folder / "first", SETTINGS, SilentReporter()).run([job])
    return job.path


def night(sites, folder: Path, number: int = 0, settings=SETTINGS, **more) -> Night:
    """The night of that number in ``folder``, not yet run, on one site or several."""
    sites = sites if isinstance(sites, list) else [sites]
    (folder / "study").mkdir(exist_ok=True)
    notices: list[str] = []
    made = Night(
        sites,
        *targets_in(folder / "tables", sites, notices.append),
        folder / "study",
        settings,
        SilentReporter(),
        more.pop("served", Served()),
        at=FIRST + timedelta(days=number),
        **more,
    )
    made.notices = notices
    return made
