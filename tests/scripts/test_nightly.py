"""The operators' files of scripts/nightly/, by the tools that are made for them."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from mla_tune.cli.commands import command

NIGHTLY = Path(__file__).parents[2] / "scripts" / "nightly"
SCRIPT = NIGHTLY / "nightly_retune.sh"
BIN = Path(sys.executable).parent


def passes(*arguments, **more):
    done = subprocess.run(
        list(map(str, arguments)), capture_output=True, text=True, check=False, **more
    )
    assert done.returncode == 0, done.stdout + done.stderr


def runs_of(workflow):
    """The shell of each step, as actionlint hands it to shellcheck."""
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    return [step["run"] for step in steps if "run" in step]


@pytest.mark.parametrize("script", sorted(NIGHTLY.glob("*.sh")), ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    passes(BIN / "shellcheck", script)
    assert os.access(script, os.X_OK)


def test_the_workflow_is_one_and_its_shell_is_sound():
    path = NIGHTLY / "github-workflow.yml"
    passes(BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", path)
    for shell in runs_of(yaml.safe_load(path.read_text())):
        passes(BIN / "shellcheck", "--shell", "bash", "-", input=shell)


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="actionlint is not here")
def test_actionlint_finds_nothing():
    passes("actionlint", "-config-file", "/dev/null", NIGHTLY / "github-workflow.yml")


def test_the_cron_job_is_one_and_allows_no_second_night():
    path = NIGHTLY / "kubernetes-cronjob.yaml"
    passes(BIN / "kubernetes-validate", "--strict", path)
    assert yaml.safe_load(path.read_text())["spec"]["concurrencyPolicy"] == "Forbid"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_the_units(tmp_path):
    for unit in NIGHTLY.glob("mla-tune-retune.*"):
        here = unit.read_text().replace("/opt/mla-tune/nightly_retune.sh", str(SCRIPT))
        (tmp_path / unit.name).write_text(here)
    done = subprocess.run(
        ["systemd-analyze", "verify", *tmp_path.iterdir()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", sorted(NIGHTLY.iterdir()), ids=lambda path: path.name)
def test_the_options_in_a_file_exist(path):
    known = {name for option in command.commands["retune"].params for name in option.opts}
    for line in path.read_text().splitlines():
        if "nightly_retune.sh -" in line or "mla-tune retune " in line:
            named = {word for word in line.split() if word.startswith("--")}
            assert named <= known, line


@pytest.fixture
def night(tmp_path):
    """Run the script with a command that stands in for mla-tune."""
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "mla-tune"
    tool.write_text('#!/bin/sh\necho "called: $*"\nexit "$CODE"\n')
    tool.chmod(0o755)
    state = tmp_path / "state"

    def run(code=0, *options):
        path = f"{tool.parent}:{os.environ['PATH']}"
        known = {"MLA_TUNE_FOLDER": "/srv/t", "MLA_TUNE_STATE": str(state), "CODE": str(code)}
        return subprocess.run(
            [SCRIPT, *options],
            env={**os.environ, **known, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    run.state = state
    return run


@pytest.mark.parametrize("code", [0, 10, 1, 2])
def test_a_night_ends_with_the_code_of_the_command_and_says_so(night, code):
    done = night(code, "--wait")
    assert done.returncode == code
    called = f"called: retune /srv/t --study-dir {night.state}/studies --wait"
    assert called in done.stdout
    (log,) = (night.state / "logs").iterdir()
    assert called in log.read_text()
    assert f" code={code} log={log}" in (night.state / "nights").read_text()


def test_two_nights_do_not_overlap(night):
    night.state.mkdir()
    with FileLock(night.state / "nightly.lock"):
        done = night()
    assert done.returncode == 75
    assert "the night before still runs" in done.stderr
    assert night().returncode == 0


def test_old_logs_go(night):
    (night.state / "logs").mkdir(parents=True)
    old, young = (night.state / "logs" / f"retune-{age}.log" for age in ("old", "young"))
    for path, days in ((old, 20), (young, 5)):
        path.touch()
        then = time.time() - days * 86400
        os.utime(path, (then, then))
    assert night().returncode == 0
    assert not old.exists()
    assert young.exists()


def test_without_a_folder_it_says_what_is_missing(night):
    done = subprocess.run([SCRIPT], env={"PATH": os.environ["PATH"]}, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode != 0
    assert "MLA_TUNE_FOLDER: names the folder of the tables" in done.stderr
    assert not night.state.exists()
