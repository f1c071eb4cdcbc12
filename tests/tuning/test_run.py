import pwd
import tempfile
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import mla_tune.tuning.run as module
from fake_device import DEFAULT, ENVIRONMENT, FakeBench
from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.shapes.file import load_shapes
from mla_tune.tuning.run import _tell_of_gpu, _worker_log, cut, found_environment
from mla_tune.tuning.run_options import RunOptions

GIVEN = RunOptions(out=Path("out"), device="cpu", min_speedup=1.01, confirm_seconds=1.0)


class Skipped(list):
    def skipped(self, what):
        self.append(what)


def given(**more):
    return replace(GIVEN, **more)


@pytest.fixture
def shapes(write):
    return load_shapes(
        write("model: deepseek-v3\ntensor_parallel_sizes: [8]\nbatch_specs: [q1s1k, 8q1s1k]\n")
    )


def test_without_flags_a_file_stays_as_it_is(shapes):
    assert cut(shapes, GIVEN, Skipped()) == shapes


def test_max_tokens_leaves_out_what_is_larger_and_says_so(shapes):
    skipped = Skipped()
    kept = cut(shapes, given(max_tokens=1024), skipped)
    assert [str(case.shape) for case in kept.cases] == ["q1s1k"]
    assert skipped == ["--max-tokens 1024: 1 larger shapes left out"]


def test_max_tokens_that_leaves_nothing_says_how_many_it_takes(shapes):
    with pytest.raises(InputError) as caught:
        cut(shapes, given(max_tokens=1023), Skipped())
    assert caught.value.valid == "1024 or more for this file"


def test_tensor_parallel_sizes_of_the_command_line_divide_the_whole_model(shapes):
    cut_down = cut(shapes, given(tensor_parallel_size=(16, 32)), Skipped())
    assert [model.num_q_heads for model in cut_down.models] == [8, 4]


@contextmanager
def fake_worker(_options):
    yield FakeBench({DEFAULT: 100.0})


@pytest.mark.parametrize("wrong", [{"backends": ("TORCH_MLAX",)}, {"out": Path("/dev/null/x")}])
def test_what_is_wrong_is_said_before_a_device_is_waited_for(write, tmp_path, monkeypatch, wrong):
    def waits(*_arguments, wait):
        raise AssertionError(f"waits for hours: {wait}")

    monkeypatch.setattr(module, "_worker", fake_worker)
    monkeypatch.setattr(module, "_alone", waits)
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
        bench.log = _worker_log(options.study_folder)
        yield bench

    log = tmp_path / "worker.log"
    log.write_text("of the night")
    path = write("model: deepseek-v2-lite\nbatch_specs: [8q1s1k]\n")
    options = given(shapes=path, out=tmp_path / "out", backends=("TORCH_MLA",), study_dir=tmp_path)
    monkeypatch.setattr(module, "_worker", logging_worker)
    with monkeypatch.context() as patched:
        patched.setattr(module, "_alone", busy)
        with pytest.raises(InputError, match="in use"):
            module.run(options, Skipped())
    assert log.read_text() == "of the night"
    monkeypatch.setattr(module, "_alone", lambda *_arguments, wait: nullcontext(wait))
    monkeypatch.setattr(module, "_tuned", lambda *_arguments: [])
    assert module.run(options, Skipped()) == []
    assert log.read_text() == ""


def test_what_only_the_driver_knows_of_the_gpu_is_told_once():
    told = Skipped()
    _tell_of_gpu(ENVIRONMENT, told)
    assert told == []
    _tell_of_gpu(replace(ENVIRONMENT, locked_sm_clock_mhz=1005, unwatched="processes (x)"), told)
    assert told == [
        "the SM clock is locked at 1005 MHz: the tables are for that",
        "not watched here: processes (x)",
    ]


def test_studies_lie_where_they_survive_a_reboot_unless_told_otherwise(tmp_path):
    assert given(study_dir=tmp_path).study_folder == tmp_path
    assert GIVEN.study_folder.is_absolute()
    assert "mla-tune" in str(GIVEN.study_folder)


@pytest.fixture
def homeless(monkeypatch):
    """A user without HOME and without an entry in the list of users."""
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(_uid):
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folder_the_study_folder_has_to_be_named(tmp_path):
    with pytest.raises(InputError, match="no home folder") as caught:
        given().study_folder  # noqa: B018
    assert "--study-dir" in caught.value.remedy
    assert given(study_dir=tmp_path).study_folder == tmp_path


def test_without_a_temporary_folder_a_device_cannot_be_looked_at(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/nowhere"])
    with pytest.raises(EnvironmentFailure, match="no folder for temporary files") as caught:
        found_environment("cpu")
    assert "TMPDIR" in caught.value.remedy


def test_a_link_planted_at_the_workers_log_is_not_followed(tmp_path, monkeypatch):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "worker.log").symlink_to(precious)
    monkeypatch.setattr("os.geteuid", lambda: 4242)
    monkeypatch.setattr("mla_tune.files.regular_file._owner_of_folder", lambda _link: 4243)
    with pytest.raises(InputError, match=r"worker\.log is a link"):
        _worker_log(tmp_path)
    assert precious.read_text() == "mine"
