"""Recordings made up for the comparison of search policies."""

import random
from pathlib import Path

from fake_device import ENVIRONMENT, splits, workload
from mla_tune.measuring.recording import Recording, Track
from mla_tune.session import Setup
from mla_tune.shapes import MlaDimensions

SETUP = Setup("TORCH_MLA", MlaDimensions(2))


def track(*latencies_us, rounds=8, spec="8q1s1k", noise=0.0, seed=0):
    """A workload whose plans take so long; the default is the first."""
    draw = random.Random(seed)
    plans = tuple(splits(number) for number in range(1, len(latencies_us) + 1))
    kept = {
        plan: [(latency_us * draw.lognormvariate(0, noise),) for _ in range(rounds)]
        for plan, latency_us in zip(plans, latencies_us, strict=True)
    }
    return Track(SETUP, workload(spec), plans, kept)


def recording(*tracks):
    return Recording(Path("made_up.jsonl.gz"), ENVIRONMENT, tracks)
