import tempfile
from dataclasses import replace

import pytest

from fake_device import ENVIRONMENT
from mla_tune.errors import EnvironmentFailure
from mla_tune.tuning.device_bench import found_environment, tell_of_gpu


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
