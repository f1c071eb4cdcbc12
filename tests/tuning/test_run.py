from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import mla_tune.tuning.run as module
from fake_device import DEFAULT, FakeBench
from mla_tune.errors import InputError
from mla_tune.tuning.run_folders import worker_log
from mla_tune.tuning.run_options import RunOptions

GIVEN = RunOptions(out=Path("out"), device="cpu", min_speedup=1.01, confirm_seconds=1.0)


class Skipped(list):
    def skipped(self, what):
        self.append(what)


def given(**more):
    return replace(GIVEN, **more)


@contextmanager
def fake_worker(_options):
    yield FakeBench({DEFAULT: 100.0})


@pytest.mark.parametrize("wrong", [{"backends": ("TORCH_MLAX",)}, {"out": Path("/dev/null/x")}])
def test_what_is_wrong_is_said_before_a_device_is_waited_for(write, tmp_path, monkeypatch, wrong):
    def waits(*_arguments, wait):
        raise AssertionError(f"waits for hours: {wait}")

    monkeypatch.setattr(module, "worker_for", fake_worker)
    monkeypatch.setattr(module, "alone", waits)
    path = write("model: deepseek-v2-lite\nbatch_specs: [8q1s1k]\n")
    right = {"shapes": path, "out": tmp_path / "out", "backends": ("TORCH_MLA",), "wait": True}
    with pytest.raises(AssertionError, match="waits for hours"):
        module.run(given(**right), Skipped())
    with pytest.raises(InputError):
        module.run(given(**right | wrong), Skipped())


def test_a_run_that_is_refused_leaves_the_log_of_the_one_that_has_the_device(
    write, tmp_path, monkeypatch
):
    def busy(*_arguments, wait):
        raise InputError(f"in use, wait is {wait}")

    @contextmanager
    def logging_worker(options):
        bench = FakeBench({DEFAULT: 100.0})
        bench.clock = SimpleNamespace(now=None)
        bench.log = worker_log(options.study_folder)
        yield bench

    log = tmp_path / "worker.log"
    log.write_text("of the night")
    path = write("model: deepseek-v2-lite\nbatch_specs: [8q1s1k]\n")
    options = given(shapes=path, out=tmp_path / "out", backends=("TORCH_MLA",), study_dir=tmp_path)
    monkeypatch.setattr(module, "worker_for", logging_worker)
    with monkeypatch.context() as patched:
        patched.setattr(module, "alone", busy)
        with pytest.raises(InputError, match="in use"):
            module.run(options, Skipped())
    assert log.read_text() == "of the night"
    monkeypatch.setattr(module, "alone", lambda *_arguments, wait: nullcontext(wait))
    monkeypatch.setattr(module, "_tuned", lambda *_arguments: [])
    assert module.run(options, Skipped()) == []
    assert log.read_text() == ""
