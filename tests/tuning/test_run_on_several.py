"""A run on several devices: two CPU workers stand for two GPUs."""

import os
import signal
from dataclasses import replace

import pytest
import torch

import mla_tune.tuning.run_on_several as module
from fake_device import ENVIRONMENT, GIB
from mla_tune.errors import InputError
from mla_tune.shapes.file import checked_shapes
from mla_tune.shapes.mapping import MappingDocument
from mla_tune.tuning.pool.local import all_alone, local_members
from mla_tune.tuning.pool.member import Member
from mla_tune.tuning.reporters import SilentReporter
from mla_tune.tuning.run import run
from mla_tune.tuning.run_on_several import run_on_several, tuned_by
from mla_tune.tuning.run_options import RunOptions

SPECS = ("q1s64", "2q1s64", "2q1s128", "4q1s64", "4q2s64", "q64")
TINY = {
    "model": {"name": "tiny", "num_q_heads": 2, "kv_lora_rank": 32, "qk_nope_head_dim": 16}
    | {"qk_rope_head_dim": 8, "v_head_dim": 16},
    "batch_specs": list(SPECS),
}
SHAPES = checked_shapes(MappingDocument.of(TINY))


def options(folder, **more):
    quick = {"confirm_seconds": 0.3, "backends": ("TORCH_MLA",), "devices": "0,1"}
    places = {"out": folder / "tables", "study_dir": folder / "study"}
    return RunOptions(**(quick | places | more))


class KillsAWorker(SilentReporter):
    """Sends SIGKILL to the first device's worker once it has taken a few trials."""

    def __init__(self, members):
        self.victim = members[0].bench
        self.devices = set()
        self.trials = []

    def on(self, device):
        self.devices.add(device)
        return self

    def tried(self, workload, outcome, best_us):
        del best_us
        self.trials.append((str(workload), outcome.plan))
        if len(self.trials) == 5:
            os.kill(self.victim._worker.pid, signal.SIGKILL)


def test_two_workers_tune_a_table_and_a_killed_one_costs_nothing(tmp_path):
    given = options(tmp_path, processes=1)  # a start of each takes seconds
    with local_members(["cpu", "cpu"], given) as members:
        reporter = KillsAWorker(members)
        result = tuned_by(members, SHAPES, given, reporter)
        assert members[0].bench.restarts >= 1
    (tuned,) = result.tables
    assert not result.failures
    assert [entry.shape for entry in tuned.entries] == list(SPECS)
    assert len(set(reporter.trials)) == len(reporter.trials)
    assert reporter.devices == {"cpu"}


def test_one_of_two_devices_that_is_in_use_refuses_the_run(tmp_path):
    given = options(tmp_path)
    told = []
    with (
        local_members(["cpu"], given) as one,
        local_members(["cpu"], given) as same,
        all_alone(one, told.append, wait=False),
        pytest.raises(InputError, match="in use by another run"),
        all_alone([*same], told.append, wait=False),
    ):
        pass
    assert told == []


class Somewhere:
    """As much of a bench as planning asks."""

    def __init__(self, environment, free_bytes=8 * GIB):
        self.environment = environment
        self.device = "cuda:0"
        self._free_bytes = free_bytes

    def free_bytes(self):
        return self._free_bytes


def members(*environments):
    return [Member(f"cuda:{n}", Somewhere(found), "x") for n, found in enumerate(environments)]


def test_each_kind_of_device_has_its_own_tables(tmp_path):
    other = replace(ENVIRONMENT, device_name="Other Device")
    crew = members(ENVIRONMENT, other, ENVIRONMENT)
    jobs = module._planned(crew, SHAPES, options(tmp_path), print)
    assert [len(own) for own in jobs.values()] == [1, 1]
    assert len({job.path for own in jobs.values() for job in own}) == 2


def test_a_kind_that_has_not_the_backend_is_left_out_and_named(tmp_path):
    gpu = replace(ENVIRONMENT, device_name="NVIDIA H100", compute_capability="9.0")
    software = {"vllm": "0.33.0", "cuda": "13.0"} | ENVIRONMENT.software
    hopper = replace(gpu, software=software)
    ada = replace(hopper, device_name="NVIDIA L4", compute_capability="8.9")
    told = []
    given = options(tmp_path, backends=("FLASH_ATTN_MLA",))
    jobs = module._planned(members(ada, hopper), SHAPES, given, told.append)
    assert [job.header.device.name for own in jobs.values() for job in own] == ["NVIDIA H100"]
    assert any("NVIDIA L4 (cuda:0) is left out" in line for line in told)


def test_what_no_kind_can_do_is_refused(tmp_path):
    with pytest.raises(InputError, match="TORCH_MLAX"):
        module._planned(
            members(ENVIRONMENT), SHAPES, options(tmp_path, backends=("TORCH_MLAX",)), print
        )


def test_two_of_one_name_that_are_not_alike_are_refused(tmp_path):
    locked = replace(ENVIRONMENT, locked_sm_clock_mhz=1200)
    with pytest.raises(InputError) as caught:
        module._planned(members(ENVIRONMENT, locked), SHAPES, options(tmp_path), print)
    assert "locked_sm_clock_mhz is None and 1200" in caught.value.what
    assert "--out" in caught.value.remedy


def test_memory_counts_by_the_fullest_of_a_kind(tmp_path):
    crew = members(ENVIRONMENT, ENVIRONMENT)
    crew[1].bench._free_bytes = 1
    with pytest.raises(InputError, match="GiB are free"):
        module._planned(crew, SHAPES, options(tmp_path), print)


def test_all_without_a_gpu_is_refused_before_a_worker_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("mla_tune.tuning.device_bench.WorkerBench", None)
    with pytest.raises(InputError, match="no GPU here"):
        run_on_several(SHAPES, options(tmp_path, devices="all"), SilentReporter())


def test_a_gpu_that_is_not_there_ends_the_run(tmp_path):
    given = options(tmp_path, devices="98,99", shapes=TINY)
    with pytest.raises(InputError, match=r"cuda:9. is not there"):
        run(given, SilentReporter())


class Counts(SilentReporter):
    """Counts trials."""

    num_trials = 0

    def tried(self, *told):
        del told
        self.num_trials += 1


def test_a_run_with_a_database_goes_on_from_what_is_there(tmp_path):
    few = TINY | {"batch_specs": ["q1s64", "2q1s64"]}
    given = options(tmp_path, devices=None, device="cpu", shapes=few)
    given = replace(given, storage=f"sqlite:///{tmp_path}/studies.db")
    first, second = Counts(), Counts()
    done = run(given, first)
    assert not done.failures
    assert first.num_trials > 0
    assert run(given, second) == done
    assert second.num_trials == 0
    assert not list((tmp_path / "study").glob("*.journal"))
