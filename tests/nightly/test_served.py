from collections import Counter
from pathlib import Path

from night_cases import GPU, job_for

from mla_tune.nightly.served import Served
from mla_tune.traffic.histogram import StepKind
from mla_tune.traffic.merged import MergedTraffic


def traffic(job, *steps) -> Served:
    header = job.header
    engine = {
        "backend": header.backend,
        "model": dict(header.model),
        "kv_cache_dtype": header.kv_cache_dtype,
    }
    counts = Counter()
    for batch, kv_len, count, mode in steps:
        counts[StepKind(mode, "hit", batch, 1, kv_len, kv_len)] += count
    return Served((MergedTraffic(engine, counts),))


def test_the_most_served_come_first():
    job = job_for(GPU, Path(), 2, ["2q1s1k", "4q1s1k", "8q1s1k"])
    served = traffic(job, (4, 900, 50, "eager"), (8, 1100, 70, "eager"), (2, 9000, 99, "eager"))
    assert [str(each) for each in served.first(job)] == ["8q1s1k", "4q1s1k", "2q1s1k"]
    assert served.steps(job) == 120


def test_steps_of_another_model_or_mode_do_not_count():
    job = job_for(GPU, Path(), 2, ["2q1s1k"])
    other = job_for(GPU, Path(), 4, ["2q1s1k"])
    assert traffic(other, (2, 1024, 5, "eager")).steps(job) == 0
    assert traffic(job, (2, 1024, 5, "graph")).steps(job) == 0
    assert traffic(job, (2, 1024, 5, "eager")).steps(job) == 5


def test_without_a_record_the_order_is_the_tables():
    job = job_for(GPU, Path(), 2, ["4q1s1k", "2q1s1k"])
    assert Served().first(job) == job.workloads
