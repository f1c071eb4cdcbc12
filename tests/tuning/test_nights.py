"""Retunes of one table night after night, each with samples and processes of its own."""

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from campaign_cases import run, table_job

from fake_device import DEFAULT, BiasedBench, splits, workload
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes import BatchShape, Case, Workload
from mla_tune.table import TableFile


def nights(folder: Path, latencies, of=None, seed=0, bias=0.003) -> list[Plan]:
    """What the table publishes each night; ``latencies`` of splits(2), the default has 100."""
    draw = random.Random(seed)
    published = []
    job = table_job(folder, workloads=(of or workload(),))
    for night, latency_us in enumerate(latencies):
        default_us = dict.fromkeys(latency_us, 100.0) if isinstance(latency_us, dict) else 100.0
        bench = BiasedBench(
            {DEFAULT: default_us, splits(2): latency_us},
            noise=0.01,
            seed=draw.getrandbits(32),
            bias=bias,
        )
        run(folder / str(night), bench, [replace(job)], processes=3)
        (entry,) = TableFile.load(job.path).entries
        published.append(entry.plan)
    return published


def flips(published: list[Plan]) -> int:
    return sum(one != other for one, other in pairwise(published))


@pytest.mark.parametrize("gain", [1.01, 1.015])
def test_what_is_at_the_gate_stays_what_it_is(tmp_path, gain):
    """Without `is_kept` a gain of 1.5 % came and went in 25 of 50 nights."""
    assert flips(nights(tmp_path, [100.0 / gain] * 30)) <= 4


@pytest.mark.parametrize("seed", range(3))
def test_a_gain_that_is_lost_is_followed_the_same_night(tmp_path, seed):
    published = nights(tmp_path, [97.0, 99.0, 101.0], seed=seed)
    assert published == [splits(2), splits(2), UNTUNED]


@pytest.mark.parametrize("seed", range(3))
def test_a_plan_that_has_become_slower_for_one_kv_length_goes_the_same_night(tmp_path, seed):
    lengths = Workload(tuple(Case(BatchShape.parse(f"8q1s{kv_len}k")) for kv_len in (1, 2)))
    good, bad = {1024: 90.0, 2048: 97.0}, {1024: 90.0, 2048: 102.0}
    published = nights(tmp_path, [good, good, bad], of=lengths, seed=seed)
    assert published == [splits(2), splits(2), UNTUNED]
