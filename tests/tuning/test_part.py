from pathlib import Path

import pytest
from campaign_cases import table_job
from hypothesis import given
from hypothesis import strategies as st

import mla_tune
from fake_device import workload
from mla_tune.errors import InputError
from mla_tune.tuning.part import Part

WORKLOADS = [workload(f"{count}q1s{kv}") for count in (2, 4, 8) for kv in ("1k", "2k")]
JOBS = [table_job(Path("out"), heads, WORKLOADS) for heads in (2, 4)]


def units(jobs):
    return [(job.path, str(workload)) for job in jobs for workload in job.workloads]


@given(st.integers(1, 20))
def test_parts_are_alike_and_together_all(of):
    parts = [Part(number, of).of_jobs(JOBS) for number in range(1, of + 1)]
    assert sorted(unit for part in parts for unit in units(part)) == sorted(units(JOBS))
    sizes = [len(units(part)) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_a_part_is_the_same_in_every_process_and_in_the_order_of_the_jobs():
    part = Part(2, 3).of_jobs(JOBS)
    assert part == Part(2, 3).of_jobs(JOBS[::-1])[::-1]
    for job in part:
        places = [WORKLOADS.index(workload) for workload in job.workloads]
        assert places == sorted(places)


def test_a_part_of_nothing_is_nothing():
    assert Part(20, 20).of_jobs(JOBS) == []


def test_parts_are_read_as_they_are_counted():
    assert Part.parse("2/8") == Part(2, 8)
    assert Part.parse("2/8").folder == "units-2-of-8"


@pytest.mark.parametrize("text", ["", "0/8", "9/8", "1", "1/0", "-1/2", "a/b", "1/2/3", "1/99999"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(InputError) as caught:
        Part.parse(text)
    assert "I/N" in caught.value.valid


def test_two_parts_fill_one_table_and_each_goes_on_by_itself(tmp_path):
    tiny = {"name": "tiny", "num_q_heads": 2, "kv_lora_rank": 32, "v_head_dim": 16}
    tiny |= {"qk_nope_head_dim": 16, "qk_rope_head_dim": 8}
    shapes = {"model": tiny, "batch_specs": ["q1s64", "2q1s64", "4q1s64"]}
    given = {"backends": "TORCH_MLA", "device": "cpu", "confirm_seconds": 0.3, "processes": 1}
    places = {"out": tmp_path / "tables", "study_dir": tmp_path / "study"}
    first, second, third = (
        mla_tune.tune(shapes, units=units, **given, **places) for units in ("1/2", "2/2", "9/9")
    )
    assert [len(tuned.entries) for result in (first, second) for tuned in result.tables] == [2, 1]
    assert third.tables == third.failures == ()
    (path,) = (tmp_path / "tables").glob("*.yaml")
    assert len(mla_tune.Table.load(path).entries) == 3
    again = mla_tune.tune(shapes, units="1/2", **given, **places)
    assert [tuned.entries for tuned in again.tables] == [tuned.entries for tuned in first.tables]
