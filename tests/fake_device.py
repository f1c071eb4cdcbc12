"""A device that is a table of latencies: seeded noise, scripted faults, and a log of its work."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mla_tune.environment import Environment
from mla_tune.measuring.orders import balanced_orders
from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.compilation import Compilation
from mla_tune.plan.failure import FailureKind, PlanFailure
from mla_tune.plan.kernel_resources import KernelResources
from mla_tune.plan.plan import Plan
from mla_tune.plan.space import PlanSpace
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, Case, Workload
from mla_tune.tuning.quarantine import Quarantine, Ward
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.study import Journal
from mla_tune.tuning.tuner import Tuner

GIB = 2**30

ENVIRONMENT = Environment(
    device_name="Fake Device",
    compute_capability=None,
    sm_count=2,
    memory_gib=16.0,
    software={"torch": "2.13.0"},
    kernels={},
)
WARD = Ward(
    backend="TORCH_MLA",
    device=ENVIRONMENT.device_name,
    model={"num_q_heads": 2},
    kv_cache_dtype="auto",
    mode="eager",
    software=ENVIRONMENT.software,
    software_digest=ENVIRONMENT.software_digest,
)

DEFAULT = Plan(num_kv_splits=4)


def splits(count: int) -> Plan:
    return Plan(num_kv_splits=count)


def workload(spec: str = "8q1s1k") -> Workload:
    return Workload((Case(BatchShape.parse(spec)),))


def guarded(spec: str) -> Workload:
    """A listed batch shape, and the same at twice the KV length as its guard."""
    shape = BatchShape.parse(spec)
    (group,) = shape.groups
    longer = BatchShape.of([replace(group, kv_len=2 * group.kv_len)])
    return Workload((Case(shape), Case(longer, 0.0)))


class StickyClock:
    """A clock that steps between full speed and ``slow`` now and then, and stays where it is.

    Args:
        slow: how much longer everything takes at the low clock.
        samples: between steps, in the mean.
        seed: of the steps.
    """

    def __init__(self, slow: float, samples: float, seed: int) -> None:
        self._slow = slow
        self._chance = 1 / samples
        self._draw = random.Random(seed)
        self._is_slow = self._draw.random() < 0.5

    def __call__(self) -> float:
        if self._draw.random() < self._chance:
            self._is_slow = not self._is_slow
        return self._slow if self._is_slow else 1.0


@dataclass
class FakeBench:
    """Stands where a `WorkerBench` stands, and answers from a table.

    Attributes:
        latencies_us: of every plan, the default first; a mapping of KV length where it matters.
        noise: standard deviation of the log latencies.
        seed: of the noise.
        race_faults, check_faults, compile_faults: kind of the failure by plan.
        slowdown: how much slower than at full clock the device is at its next sample.
        resources: what kernels take, by plan.
        before: called with a word for each thing asked of the device, before it is done.
    """

    latencies_us: Mapping[Plan, float | Mapping[int, float]]
    noise: float = 0.0
    seed: int = 0
    race_faults: Mapping[Plan, str] = field(default_factory=dict)
    check_faults: Mapping[Plan, str] = field(default_factory=dict)
    compile_faults: Mapping[Plan, str] = field(default_factory=dict)
    resources: Mapping[Plan, KernelResources] = field(default_factory=dict)
    before: Callable[[str], None] = lambda _what: None
    slowdown: Callable[[], float] | None = None
    environment: Environment = ENVIRONMENT
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._noise = random.Random(self.seed)
        self.workload: Workload | None = None
        self.raced: list[tuple[str, tuple[Plan, ...]]] = []
        self.race_rounds: list[int] = []
        self.checked: list[tuple[str, Plan]] = []
        self.compiled: list[Plan] = []

    def free_bytes(self) -> int:
        return 8 * GIB

    def open(self, setup: Setup) -> None:
        self.setup = setup

    def plan_space(self, shapes: Sequence[BatchShape]) -> PlanSpace:
        del shapes
        return PlanSpace(tuple(self.latencies_us), len(self.latencies_us))

    def load(self, workload: Workload) -> None:
        self.before(f"load {workload}")
        self.workload = workload

    def compile(self, plans: Sequence[Plan]) -> Compilation:
        """A kernel of its own for each plan, whatever the workload."""
        self.before(f"compile {len(plans)}")
        new = [plan for plan in plans if plan not in {*self.compiled, *self.compile_faults}]
        self.compiled += new
        failures = {
            plan: PlanFailure(f"scripted for {plan}", plan=plan, kind=FailureKind(kind))
            for plan, kind in self.compile_faults.items()
            if plan in plans
        }
        return Compilation(len(new), float(len(new)), failures)

    def race(
        self,
        plans: Sequence[Plan],
        rounds: int,
        seed: int,
        cases: Sequence[int] | None = None,
    ) -> dict[Plan, Samples]:
        self.before(f"race {self._key} {'; '.join(map(str, plans))}")
        self.raced.append((self._key, tuple(plans)))
        self.race_rounds.append(rounds)
        for plan in plans:
            self._fail(self.race_faults, plan)
        speeds = self._speeds(plans, rounds, seed)
        rows = {
            plan: tuple(self._round(plan, slow, cases) for slow in speeds[plan]) for plan in plans
        }
        return {p: Samples(row, resources=self.resources.get(p)) for p, row in rows.items()}

    def _speeds(self, plans: Sequence[Plan], rounds: int, seed: int) -> dict[Plan, list[float]]:
        """How much slower than at full clock each sample is, in the order that they are taken."""
        speeds: dict[Plan, list[float]] = {plan: [] for plan in plans}
        for order in balanced_orders(plans, rounds, seed):
            for plan in order:
                speeds[plan].append(self.slowdown() if self.slowdown is not None else 1.0)
        return speeds

    def verify(self, plan: Plan) -> None:
        self.before(f"check {self._key} {plan}")
        self.checked.append((self._key, plan))
        self._fail(self.check_faults, plan)

    def renew(self) -> bool:
        return False

    def close(self) -> None:
        pass

    @property
    def _key(self) -> str:
        return str(self.workload)

    def _round(self, plan: Plan, slow: float, cases: Sequence[int] | None) -> tuple[float, ...]:
        assert self.workload is not None
        return tuple(
            slow * self._latency_us(plan, shape) if cases is None or number in cases else math.nan
            for number, shape in enumerate(self.workload.shapes)
        )

    def _latency_us(self, plan: Plan, shape: BatchShape) -> float:
        latency = self.latencies_us[plan]
        if isinstance(latency, Mapping):
            latency = latency[shape.max_kv_len]
        return latency * self._noise.lognormvariate(0.0, self.noise)

    def _fail(self, faults: Mapping[Plan, str], plan: Plan) -> None:
        if plan in faults:
            kind = FailureKind(faults[plan])
            raise PlanFailure(f"scripted for {plan}", plan=plan, kind=kind)


@dataclass
class BiasedBench(FakeBench):
    """A device whose processes differ.

    Attributes:
        bias: standard deviation, over processes, of the log of a plan's factor; each process has
            one for each plan of each workload, or of each of its cases if ``is_by_case``.
        slower_from: the process from which on a plan takes a tenth longer at the longest case.
        process: how many there have been before this one.
    """

    bias: float = 0.0
    is_by_case: bool = False
    slower_from: Mapping[Plan, int] = field(default_factory=dict)
    process: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._factors: dict[tuple[int, str, Plan], float] = {}  # by process, key and plan

    def renew(self) -> bool:
        self.before("renew")
        self.process += 1
        self.workload = None
        return True

    def _latency_us(self, plan: Plan, shape: BatchShape) -> float:
        key = (self.process, str(shape) if self.is_by_case else self._key, plan)
        if key not in self._factors:
            self._factors[key] = random.Random(f"{self.seed} {key}").lognormvariate(0.0, self.bias)
        latency_us = super()._latency_us(plan, shape) * self._factors[key]
        return latency_us * (1.1 if self._is_slower(plan, shape) else 1.0)

    def _is_slower(self, plan: Plan, shape: BatchShape) -> bool:
        if self.process < self.slower_from.get(plan, math.inf):
            return False
        assert self.workload is not None
        return shape.max_kv_len == max(other.max_kv_len for other in self.workload.shapes)


def tuner_for(
    bench: FakeBench, folder: Path, journal: Journal | None = None, **settings: object
) -> Tuner:
    """A tuner over ``bench`` that keeps its books in ``folder``."""
    quick: dict[str, object] = {"confirmation_rounds": 32, "confirmation_s": 600.0}
    return Tuner(
        bench=bench,
        journal=journal or Journal(folder / "a.journal"),
        quarantine=Quarantine(folder / "quarantine.yaml"),
        ward=WARD,
        settings=Settings(**(quick | settings)),
    )
