"""Readings of made-up nights, which the tests of a history share."""

from datetime import UTC, datetime, timedelta

from mla_tune.nightly.reading import Reading
from mla_tune.plan.plan import Plan
from mla_tune.table import Speedup

FIRST = datetime(2026, 11, 1, 2, tzinfo=UTC)


def reading(night: int, latency_us: float = 100.0, default_us: float = 200.0, **more) -> Reading:
    gain = default_us / latency_us
    known = {
        "at": FIRST + timedelta(days=night),
        "kind": "sentinel",
        "shape": "8q1s1k",
        "plan": Plan(num_kv_splits=2),
        "latency_us": latency_us,
        "default_us": default_us,
        "speedup": Speedup(median=gain, low=gain * 0.99, high=gain * 1.01),
        "software": {"vllm": "0.33.0"},
        "card": "0a1b2c3d",
    }
    return Reading(**(known | more))


def nights(latencies_us, **more) -> list[Reading]:
    return [reading(night, latency_us, **more) for night, latency_us in enumerate(latencies_us)]
