import os
import tempfile
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest

from fake_device import ENVIRONMENT
from mla_tune.errors import EnvironmentFailure
from mla_tune.tuning import device_bench
from mla_tune.tuning.device_bench import found_environment, started_worker, tell_of_gpu
from mla_tune.tuning.run_options import RunOptions


def test_what_only_the_driver_knows_of_the_gpu_is_told_once():
    told = []
    tell_of_gpu(ENVIRONMENT, told.append)
    assert told == []
    tell_of_gpu(
        replace(ENVIRONMENT, locked_sm_clock_mhz=1005, unwatched="processes (x)"), told.append
    )
    assert told == [
        "the SM clock is locked at 1005 MHz: the tables are for that",
        "not watched here: processes (x)",
    ]


def test_without_a_temporary_folder_a_device_cannot_be_looked_at(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/nowhere"])
    with pytest.raises(EnvironmentFailure, match="no folder for temporary files") as caught:
        found_environment("cpu")
    assert "TMPDIR" in caught.value.remedy


@pytest.mark.parametrize(
    ("cores", "gib", "devices", "processes", "renewals"),
    [
        (32, 256, 2, 3, 2),
        (32, 256, 2, 1, 0),  # no other process is to follow
        (16, 128, 2, 3, 1),
        (2, 256, 1, 3, 0),  # they would take the cores of the one that measures
        (64, 16, 1, 3, 2),
        (64, 16, 8, 3, 0),
    ],
)
def test_processes_wait_only_where_the_host_has_room(
    tmp_path, monkeypatch, cores, gib, devices, processes, renewals
):
    free = SimpleNamespace(available=gib << 30)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(device_bench, "WorkerBench", lambda *_given, renewals: renewals)
    options = RunOptions(processes=processes, study_dir=tmp_path)
    assert started_worker("cuda:0", options, side_by_side=devices) == renewals
