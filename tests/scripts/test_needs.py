import subprocess
import sys
from pathlib import Path

import pytest

from needs import need

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scripts/a.py"])

    def call(*packages, **more):
        with pytest.raises(SystemExit) as end:
            need(*packages, **more)
        assert end.value.code == 2
        return capsys.readouterr().err

    return call


def test_what_is_not_here_is_said_in_a_line(refused, monkeypatch):
    assert refused("no_such_package") == (
        "scripts/a.py needs no_such_package, which is not installed here\n"
    )
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert refused(gpu=True) == "scripts/a.py needs a CUDA GPU, and PyTorch sees none here\n"


def test_what_is_here_is_not(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    need("torch", gpu=True, arguments=[])


@pytest.mark.parametrize(
    "arguments", [["--help"], ["x", "--device", "cpu"], ["--device=cpu"]], ids=" ".join
)
def test_without_a_gpu_help_and_a_cpu_can_be_asked_for(monkeypatch, arguments):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    need("torch", gpu=True, arguments=arguments)


def test_every_script_that_takes_a_gpu_says_that_it_needs_one():
    """Those with CUDA in what they do, but for those that run on a CPU where there is none."""
    takes_one = {
        path.stem
        for path in SCRIPTS.glob("*.py")
        if "__main__" in (text := path.read_text())
        and any(sign in text for sign in ('"cuda', "--gpu-memory-utilization", "ServedEngine("))
    }
    says_so = {path.stem for path in SCRIPTS.glob("*.py") if "gpu=True)" in path.read_text()}
    assert takes_one - says_so == {"bench_step"}
    assert "check_runtime" in says_so


def test_a_script_on_this_machine_ends_without_a_traceback():
    done = subprocess.run(
        [sys.executable, SCRIPTS / "race_tables.py", "a.yaml", "b.yaml"],
        capture_output=True,
        text=True,
        env={"CUDA_VISIBLE_DEVICES": "", "PATH": ""},
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.endswith("needs a CUDA GPU, and PyTorch sees none here\n")
    assert done.stderr.count("\n") == 1
