"""A made-up kernel with launch constants: latencies over launches and split counts, with noise."""

import itertools
import math
import random
from dataclasses import dataclass, replace
from pathlib import Path

from fake_device import ENVIRONMENT, FakeBench
from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.launch import launch_of
from mla_tune.plan.plan import Plan
from mla_tune.plan.space import PlanSpace
from mla_tune.session import Setup
from mla_tune.shapes import MlaDimensions, Workload
from mla_tune.table import Header
from mla_tune.tuning.api import SilentReporter
from mla_tune.tuning.campaign import Campaign
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.settings import Settings

GPU = replace(
    ENVIRONMENT, compute_capability="9.0", sm_count=132, software={"vllm": "0.33.0", "triton": "3"}
)
HEADS = 128
MULTIPROCESSORS = 132
WORKLOADS = tuple(Workload.parse(f"{batch}q1s{{1k,4k,16k}}") for batch in ("", 3, 12, 40, 128, 256))
OWN = {"block_n": 32, "block_h": 16, "num_warps": 4, "num_stages": 2}
LAUNCHES = tuple(
    Plan(block_n=n, block_h=h, num_warps=warps, num_stages=stages)
    for n, h, warps, stages in itertools.product((32, 64, 128), (16, 32, 64), (4, 8), (1, 2, 3))
    if {"block_n": n, "block_h": h, "num_warps": warps, "num_stages": stages} != OWN
)
FROZEN = 256


def split_counts(rows: int) -> list[int]:
    """Powers of two, and what fills one or two waves."""
    filling = {waves * 2 * MULTIPROCESSORS // (rows * HEADS // 16) for waves in (1, 2)}
    return sorted({2**power for power in range(8)} | (filling - {0}))


@dataclass
class LaunchedBench(FakeBench):
    """Thread blocks run in waves; how fast one is depends on its launch, by ``seed``."""

    latencies_us: None = None
    noise: float = 0.01
    launches: tuple[Plan, ...] = LAUNCHES
    environment = GPU

    def plan_space(self, shapes) -> PlanSpace:
        counts = split_counts(shapes[0].num_query_tokens)
        splits = [Plan(num_kv_splits=count) for count in (FROZEN, *counts)]
        plans = [
            *splits,
            *(Plan(**plan, **launch) for launch in self.launches for plan in splits),
        ]
        return PlanSpace(tuple(plans), len(plans))

    def race(self, plans, rounds, seed, cases=None) -> dict[Plan, Samples]:
        del seed
        self.before(f"race {self._key} {'; '.join(map(str, plans))}")
        self.raced.append((self._key, tuple(plans)))
        self.race_rounds.append(rounds)
        for plan in plans:
            self._fail(self.race_faults, plan)
        return {
            plan: Samples(tuple(self._round(plan, 1.0, cases) for _ in range(rounds)))
            for plan in plans
        }

    def _latency_us(self, plan, shape) -> float:
        return self.true_us(plan, shape) * self._noise.lognormvariate(0.0, self.noise)

    def true_us(self, plan: Plan, shape) -> float:
        rows, splits = shape.num_query_tokens, plan["num_kv_splits"]
        launch = launch_of(plan)
        block_h = launch.get("block_h", 16)
        at_once = MULTIPROCESSORS * (2 if block_h == 16 else 1)
        waves = math.ceil(rows * HEADS / block_h * splits / at_once)
        tokens = math.ceil(shape.max_kv_len / splits / 32) * 32
        token_us = 0.02 * (0.6 + 0.4 * block_h / 16) * self._factor(launch, rows)
        combining_us = rows * HEADS * splits * 513 * 4 / 3e6
        return 8.0 + waves * (tokens * token_us + 1.0) + combining_us

    def _factor(self, launch: Plan, rows: int) -> float:
        """Of its own, and a little of its own in small and in large batches."""
        own = random.Random(f"{self.seed} {launch}").lognormvariate(0.0, 0.12) if launch else 1.15
        size = random.Random(f"{self.seed} {launch} {rows > 16}").lognormvariate(0.0, 0.03)
        return own * size

    def expected_us(self, plan: Plan, workload: Workload) -> float:
        return sum(
            share * self.true_us(plan, shape)
            for share, shape in zip(workload.shares(), workload.shapes, strict=True)
        )


def table_job(folder: Path, mode: str = "graph", workloads=WORKLOADS) -> TableJob:
    model = MlaDimensions(HEADS)
    header = Header.of(GPU, "TRITON_MLA", model, "auto", mode, 131072)
    return TableJob(
        Setup("TRITON_MLA", model, mode=mode), tuple(workloads), header, folder / "table.yaml"
    )


def tuned(folder: Path, bench: FakeBench, launches=None, job=None, reporter=None, rounds=16):
    """Tune a table; returns what the run decided."""
    settings = Settings(processes=1, launches=launches, confirmation_rounds=rounds)
    campaign = Campaign(bench, folder / "study", settings, reporter or SilentReporter())
    return campaign.run([job or table_job(folder)])


def plans_of_all(bench: FakeBench, workloads=WORKLOADS) -> set[Plan]:
    return {plan for workload in workloads for plan in bench.plan_space(workload.shapes).plans}
