"""A shipped table's shapes as a job on a made-up GPU."""

from dataclasses import replace
from pathlib import Path

import pytest

from fake_device import ENVIRONMENT, GIB
from mla_tune.errors import UnavailableError
from mla_tune.nightly.table_job import job_of
from mla_tune.plan.plan import UNTUNED
from mla_tune.shapes.served_reach import ServedReach
from mla_tune.table import TableFile
from mla_tune.tuning.recheck import measured_workload

TABLES = Path(__file__).parents[2] / "tuned_configs"
BEFORE = Path(__file__).parents[1] / "data" / "h100" / "graph_triton_mla_16_to_128k.yaml"
H100 = replace(
    ENVIRONMENT,
    device_name="NVIDIA H100 80GB HBM3",
    compute_capability="9.0",
    sm_count=132,
    software={"vllm": "0.33.0", "torch": "2.11.0", "triton": "3.6.0", "cuda": "13.0"},
)


@pytest.fixture
def shipped():
    (path,) = TABLES.glob("TRITON_MLA-NVIDIA_H100*heads_16*")
    return path, TableFile.load(path)


def keys(job):
    return [workload.measured_key for workload in job.workloads]


def test_a_table_becomes_the_job_that_it_was_made_by(shipped, tmp_path):
    path, file = shipped
    job = job_of(file, H100, "cuda", 200 * GIB, tmp_path)
    assert job.path == tmp_path / path.name
    assert [str(each) for each in job.workloads] == [entry.shape for entry in file.entries]
    by_shape = dict(zip((entry.shape for entry in file.entries), job.workloads, strict=True))
    for entry in file.entries:
        assert by_shape[entry.shape].holds_to == entry.holds_to
        assert by_shape[entry.shape].holds_ragged == entry.holds_ragged
        assert by_shape[entry.shape].weight == pytest.approx(entry.weight, rel=1e-3)


def test_an_entry_that_keeps_the_default_gets_its_guards_and_ragged_batches_again(
    shipped, tmp_path
):
    _, file = shipped
    bare = [
        entry.model_copy(update={"plan": UNTUNED, "speedup": None, "cases": ()})
        for entry in file.entries
    ]
    whole = job_of(file, H100, "cuda", 200 * GIB, tmp_path)
    rebuilt = job_of(replace(file, entries=tuple(bare)), H100, "cuda", 200 * GIB, tmp_path)
    uniform = [key.split("}+")[0] for key in keys(whole)]
    assert [key.split("}+")[0] for key in keys(rebuilt)] == uniform
    assert all(
        each.holds_ragged == entry.holds_ragged
        for each, entry in zip(rebuilt.workloads, file.entries, strict=True)
    )


def test_an_entry_of_before_ragged_guards_gets_them(tmp_path):
    file = TableFile.load(BEFORE)
    job = job_of(file, H100, "cuda", 200 * GIB, tmp_path)
    (workload,) = (each for each in job.workloads if str(each) == "8q1s{1k,4k,16k}")
    (entry,) = (each for each in file.entries if each.shape == str(workload))
    before = measured_workload(entry)
    assert workload.cases[: len(before.listed)] == before.listed
    added = set(workload.shapes) - set(before.shapes)
    # About 32k, 64k and 128k, of which no request has more than 128k.
    means = sorted(shape.num_kv_tokens / shape.num_requests / 1024 for shape in added)
    assert means == pytest.approx([32, 55.2, 82.9], abs=0.1)
    assert workload.weight == before.weight


def test_what_bounds_guards_by_what_was_served_stays(shipped, tmp_path):
    _, file = shipped
    reach = ServedReach(to=11585, beyond=0.002)
    bare = {"plan": UNTUNED, "speedup": None, "cases": (), "holds_to": 11585, "served": reach}
    entries = [
        entry.model_copy(update=bare if number % 2 else {"served": reach})
        for number, entry in enumerate(file.entries)
    ]
    job = job_of(replace(file, entries=tuple(entries)), H100, "cuda", 200 * GIB, tmp_path)
    assert {workload.served for workload in job.workloads} == {reach}
    for workload in job.workloads[1::2]:
        guards = [case.shape.max_kv_len for case in workload.cases if case.is_guard]
        assert guards
        assert max(guards) <= max(11585, *(c.shape.max_kv_len for c in workload.listed))


def test_a_smaller_gpu_guards_less(shipped, tmp_path):
    _, file = shipped
    large, small = (job_of(file, H100, "cuda", n * GIB, tmp_path) for n in (200, 12))
    assert sum(len(each.cases) for each in small.workloads) < sum(
        len(each.cases) for each in large.workloads
    )
    assert [str(each) for each in small.workloads] == [str(each) for each in large.workloads]


def test_another_release_is_another_table(shipped, tmp_path):
    path, file = shipped
    newer = replace(H100, software=H100.software | {"vllm": "0.34.0"})
    job = job_of(file, newer, "cuda", 200 * GIB, tmp_path)
    assert job.path.name == path.name.replace("0.33.0", "0.34.0")


def test_a_backend_that_does_not_run_here_says_so(tmp_path):
    (path,) = TABLES.glob("FLASH_ATTN_MLA-NVIDIA_H200-heads_16-kv_auto-graph*")
    ampere = replace(H100, device_name="NVIDIA A100", compute_capability="8.0")
    with pytest.raises(UnavailableError, match="FLASH_ATTN_MLA"):
        job_of(TableFile.load(path), ampere, "cuda", 200 * GIB, tmp_path)
