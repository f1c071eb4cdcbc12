from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import mla_tune.tuning.run as module
from fake_device import DEFAULT, ENVIRONMENT, GIB, FakeBench
from mla_tune.errors import InputError
from mla_tune.tuning.run_folders import worker_log
from mla_tune.tuning.run_options import RunOptions
from mla_tune.vllm import compat
from mla_tune.vllm.backend import VllmBackend
from served_record import written

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


def test_a_record_bounds_the_guards_of_a_run(write, tmp_path, monkeypatch):
    gpu = replace(ENVIRONMENT, compute_capability="9.0", software={"vllm": "0.33.0"})
    clock = SimpleNamespace(now=lambda: 0.0)
    worker = SimpleNamespace(environment=gpu, device="cuda", log=write("", "log"), clock=clock)
    worker.free_bytes = lambda: 64 * GIB
    monkeypatch.setattr(VllmBackend, "unavailable", lambda *_: None)
    monkeypatch.setattr(compat, "release", lambda: (0, 33, 0))
    monkeypatch.setattr(module, "worker_for", lambda _: nullcontext(worker))
    monkeypatch.setattr(module, "alone", lambda *_, wait: nullcontext(wait))
    monkeypatch.setattr(module, "tell_of_gpu", lambda *_: None)
    monkeypatch.setattr(module, "_tuned", lambda _bench, jobs, *_: jobs)
    places = {
        "shapes": write(
            "model: deepseek-v3\ntensor_parallel_sizes: [8, 16]\nengine: {modes: graph}\n"
            "batch_specs: [q1s1k]\n"
        ),
        "out": tmp_path / "out",
        "backends": ("FLASH_ATTN_MLA",),
    }
    record = written(tmp_path / "served.json", ("graph", "hit", 1, 1, 5793, 5793, 20_000))
    skipped = Skipped()
    by_record = module.run(given(guard="served", served=record, **places), skipped)
    keys = [workload.measured_key for job in by_record for workload in job.workloads]
    assert keys == ["q1s1k+{256,2k,4k,8191}", "q1s1k+{256,2k,4k,8k,16k,32k,64k,128k}"]
    assert "1 of 1 batch sizes are guarded as far as" in skipped[0]
    assert "8 heads: the record" in skipped[1]


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
