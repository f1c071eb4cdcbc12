import importlib
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from types import ModuleType

import psutil
import pytest

from fake_device import workload
from faulty import end_at_once, faulty_bench
from mla_tune.errors import InputError
from mla_tune.measuring.bench import SessionBench
from mla_tune.measuring.running_clock import RunningClock
from mla_tune.measuring.worker_process import Limits, WorkerDied, WorkerProcess, WorkerTimeout
from mla_tune.plan.failure import FailureKind
from mla_tune.plan.plan import Plan
from torch_mla_cases import SETUP

LIMITS = Limits(sample_s=2.0, warm_up_s=2.0, open_s=120.0)
GOOD, EXITS, SLEEPS = (Plan(num_kv_splits=count) for count in (1, 5, 3))
FAULTS = {EXITS: "exits", SLEEPS: "sleeps"}


def started(tmp_path, factory=SessionBench, limits=LIMITS, device="cpu"):
    return WorkerProcess(device, tmp_path / "worker.log", limits, factory, RunningClock())


@pytest.fixture
def process(tmp_path):
    process = started(tmp_path, partial(faulty_bench, FAULTS))
    process.ask("open", SETUP)
    process.ask("load", workload("2q1s1k"))
    yield process
    process.kill()


def test_it_answers_until_it_is_killed(process):
    assert (process.device, process.environment.is_cuda) == ("cpu", False)
    assert len(process.ask("race", (GOOD,), 2, 0)[GOOD].rounds) == 2
    assert not process.is_gone
    process.kill()
    assert process.is_gone


def test_one_that_ends_says_how_and_whose_turn_it_was(process):
    with pytest.raises(WorkerDied) as caught:
        process.ask("race", (GOOD, EXITS), 2, 0)
    assert (caught.value.cause, caught.value.plan) == ("exit code 7", EXITS)
    assert process.is_gone


def test_one_that_ended_before_any_plans_turn_blames_none(process):
    os.kill(process.pid, signal.SIGABRT)
    process._process.join(timeout=10)
    with pytest.raises(WorkerDied) as caught:
        process.ask("race", (GOOD,), 2, 0)
    assert (caught.value.cause, caught.value.plan) == ("SIGABRT", None)


def test_one_that_hangs_is_killed_at_the_limit_of_the_step(process, monkeypatch):
    monkeypatch.setattr(process, "_limits", Limits(sample_s=0.3, warm_up_s=0.3))
    with pytest.raises(WorkerTimeout) as caught:
        process.ask("race", (SLEEPS,), 2, 0)
    assert (caught.value.limit_s, caught.value.plan) == (0.3, SLEEPS)
    assert process.is_gone


def test_a_device_that_rests_does_not_hang():
    limits = Limits(sample_s=1.0, warm_up_s=2.0, open_s=3.0)
    assert [limits.of(step) for step in ("sample", "check", "rest")] == [1.0, 2.0, 3.0]


def test_one_that_does_not_come_up_has_died(tmp_path):
    with pytest.raises(WorkerDied, match="exit code 9"):
        started(tmp_path, end_at_once)


def test_a_device_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="device cuda:99 is not there"):
        started(tmp_path, device="cuda:99")


@pytest.mark.parametrize(
    ("lost", "kind"),
    [
        (WorkerDied("SIGSEGV", EXITS), FailureKind.DIED),
        (WorkerTimeout(2.0, SLEEPS), FailureKind.TIMED_OUT),
    ],
)
def test_the_loss_of_a_worker_crosses_a_process_boundary_whole(lost, kind):
    copy = pickle.loads(pickle.dumps(lost))
    assert (type(copy), vars(copy), copy.kind) == (type(lost), vars(lost), kind)


def test_it_does_not_import_the_script_that_started_this_process(monkeypatch, tmp_path):
    script = ModuleType("__main__")
    script.__file__ = str(tmp_path / "script.py")
    (tmp_path / "script.py").write_text("import os; os._exit(9)")
    monkeypatch.setitem(sys.modules, "__main__", script)
    started(tmp_path).kill()
    assert sys.modules["__main__"] is script


def test_one_that_is_suspended_has_not_timed_out(process, monkeypatch):
    process.ask("race", (GOOD,), 1, 0)
    short = Limits(sample_s=0.4, warm_up_s=0.4, open_s=0.4)
    monkeypatch.setattr(process, "_limits", short)
    os.kill(process.pid, signal.SIGSTOP)
    threading.Timer(1.2, os.kill, (process.pid, signal.SIGCONT)).start()
    assert process.ask("race", (GOOD,), 1, 0)[GOOD].rounds


def test_a_terminal_that_closes_ends_none_and_blames_no_plan(process):
    process.ask("race", (GOOD,), 1, 0)
    os.kill(process.pid, signal.SIGHUP)
    assert process.ask("race", (GOOD,), 1, 0)[GOOD].rounds


def test_a_terminal_that_closes_while_one_starts_does_not_end_it(tmp_path, monkeypatch):
    real = WorkerProcess._answer

    def hang_up_first(process, request):
        os.kill(process.pid, signal.SIGHUP)
        os.kill(process.pid, signal.SIGINT)
        return real(process, request)

    monkeypatch.setattr(WorkerProcess, "_answer", hang_up_first)
    process = started(tmp_path)
    process.kill()


def test_a_worker_ends_with_its_parent_even_while_a_kernel_hangs(tmp_path):
    program = f"""
        import sys
        from functools import partial
        from pathlib import Path
        from faulty import faulty_bench
        from fake_device import workload
        from test_worker_process import FAULTS, SETUP, SLEEPS, Limits, started

        if __name__ == "__main__":
            process = started(Path({str(tmp_path)!r}), partial(faulty_bench, FAULTS), Limits())
            process.ask("open", SETUP)
            process.ask("load", workload("2q1s1k"))
            print(process.pid, flush=True)
            process.ask("race", (SLEEPS,), 1, 0)
    """
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(program))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parent = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment
    )
    worker = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    worker.wait(timeout=20)
    parent.stdout.close()


@pytest.mark.parametrize("ahead", [None, ("asked_at_import",)])
def test_nothing_is_built_in_the_background_of_its_imports(tmp_path, monkeypatch, ahead):
    monkeypatch.delenv("HUMMING_DISABLE_PARALLEL_BUILD", raising=False)
    told = tmp_path / "told"
    ask = f"""\
        import os
        from pathlib import Path
        def ask(*_):
            Path({str(told)!r}).write_text(os.environ["HUMMING_DISABLE_PARALLEL_BUILD"])
    """
    (tmp_path / "asked_later.py").write_text(textwrap.dedent(ask))
    (tmp_path / "asked_at_import.py").write_text("from asked_later import ask\nask()\n")
    monkeypatch.syspath_prepend(tmp_path)
    factory = importlib.import_module("asked_later").ask if ahead is None else SessionBench
    process = WorkerProcess(
        "cpu", tmp_path / "worker.log", LIMITS, factory, RunningClock(), ahead=ahead
    )
    if ahead is not None:
        process.begin()
    process.kill()
    assert told.read_text() == "1"
    assert "HUMMING_DISABLE_PARALLEL_BUILD" not in os.environ
