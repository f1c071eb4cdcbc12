"""Ctrl-C, kill -9 and a second run in the middle of a real run."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from command_line import MAIN, MODEL, options, refused, table_of, trials

from mla_tune.device.lock import FOLDER_VARIABLE
from mla_tune.table import Table

# Enough to be still at it when a signal arrives on a busy machine.
RUNNING_SPECS = ("4q4s1k_8q1s2k", "2q1s300", "2q3s700", "5q1s900", "2q6s1100", "4q1s1300")


@pytest.fixture
def running(tmp_path):
    """A real run with trials on disk and more to come."""
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text(MODEL + f"batch_specs: [{', '.join(RUNNING_SPECS)}]\n")
    command = [*MAIN, *options(tmp_path), "--shapes", str(shapes)]
    run = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts its background jobs with Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while len(trials(tmp_path)) < 3:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield run, command, tmp_path
    run.kill()
    run.communicate()


def assert_goes_on(folder: Path, command: list[str], before: list) -> None:
    """The same command again finishes, keeps every trial, and repeats none."""
    assert len(before) >= 3
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = trials(folder)
    assert after[: len(before)] == before
    knobs = [(study, json.dumps(outcome["knobs"])) for study, outcome in after]
    assert len(set(knobs)) == len(knobs)
    assert len(Table.load(table_of(folder)).entries) == len(RUNNING_SPECS)


def test_ctrl_c_ends_at_once_keeps_every_trial_and_says_how_to_go_on(running):
    run, command, folder = running
    pressed = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: the worker gets it as well
    _, errors = run.communicate(timeout=60)
    assert time.monotonic() - pressed < 3.0  # a second, and slack for a busy machine
    assert run.returncode == 130, errors
    assert "Traceback" not in errors
    assert str(folder / "study") in errors
    assert "Run the same command to go on" in errors
    assert_goes_on(folder, command, trials(folder))


def test_kill_9_loses_no_trial_and_leaves_no_worker(running):
    run, command, folder = running
    children = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.communicate()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    assert_goes_on(folder, command, trials(folder))


@pytest.fixture
def stopped(running):
    """That run, stopped where it was: it holds its locks and gets no further."""
    run, _, folder = running
    os.kill(run.pid, signal.SIGSTOP)
    yield run, folder
    os.kill(run.pid, signal.SIGCONT)


def test_a_second_run_on_the_same_study_is_refused_while_the_first_goes_on(
    stopped, cli, monkeypatch
):
    _, folder = stopped
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder / "locks"))
    message = refused(cli, *options(folder), "--shapes", folder / "shapes.yaml")
    assert "in use by another run" in message
    assert "--study-dir" in message


def test_a_second_run_on_the_device_is_refused_or_waits_whatever_its_study_is(stopped, tuned, cli):
    run, folder = stopped
    shapes, holder = folder / "shapes.yaml", f"cpu is in use by another run: process {run.pid} on "
    message = refused(cli, *options(folder / "2"), "--shapes", shapes)
    assert holder in message
    assert "--wait" in message
    assert trials(folder / "2") == []
    assert holder in refused(cli, "recheck", table_of(tuned[0]), "--device", "cpu")
    waits = [*options(folder / "3"), "--shapes", str(shapes), "--max-tokens", "600", "--wait"]
    with subprocess.Popen([*MAIN, *waits], stdout=subprocess.PIPE, text=True) as waiting:
        shown = [waiting.stdout.readline() for _ in range(2)]
        assert holder in shown[-1]
        run.kill()
        rest, _ = waiting.communicate(timeout=120)
    assert waiting.returncode == 0
    assert "2q1s300" in rest
