import os
import signal
import threading
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import yaml

from fake_device import WARD, workload
from faulty import (
    DiesOnOpen,
    EndedFromOutside,
    HangsOnce,
    KilledOnce,
    end_at_once,
    faulty_bench,
    faulty_bench_without_room,
)
from mla_tune.errors import (
    EnvironmentFailure,
    InputError,
    UnavailableError,
    WorkloadFailure,
)
from mla_tune.measuring import second_try
from mla_tune.measuring.worker_client import Limits, Stopped, WorkerBench
from mla_tune.plan.failure import PlanFailure
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.tuning.quarantine import Quarantine
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.study import Journal
from mla_tune.tuning.tuner import Tuner
from torch_mla_cases import SETUP

pytestmark = pytest.mark.usefixtures("preloaded_workers")

# Generous for a machine that does other work too; the plan that sleeps is tried twice.
LIMITS = Limits(sample_s=2.0, warm_up_s=2.0, open_s=120.0)
WORKLOAD = workload("2q1s1k")
GOOD = Plan(num_kv_splits=1)
FAULTS = {
    Plan(num_kv_splits=2): "raises",
    Plan(num_kv_splits=3): "sleeps",
    Plan(num_kv_splits=5): "exits",
    Plan(num_kv_splits=6): "segfaults",
    Plan(num_kv_splits=7): "takes all memory",
    Plan(num_kv_splits=8): "scales by 1 %",
    Plan(num_kv_splits=10): "raises in a circle",
}
KINDS = {
    "raises": ("raised", "ValueError: bad plan"),
    "raises in a circle": ("raised", "ValueError: its own cause"),
    "sleeps": ("timed out", "no answer within 2 s"),
    "exits": ("died", "exit code 7"),
    "segfaults": ("died", "SIGSEGV"),
    "takes all memory": ("out of memory", "allocate memory"),
}
BY_FAULT = {fault: plan for plan, fault in FAULTS.items()}


def started(tmp_path, factory, limits=LIMITS):
    worker = WorkerBench("cpu", tmp_path / "worker.log", limits, factory)
    worker.open(SETUP)
    worker.load(WORKLOAD)
    return worker


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    worker = started(tmp_path_factory.mktemp("worker"), partial(faulty_bench, FAULTS))
    yield worker
    worker.close()


@pytest.mark.parametrize("fault", KINDS)
def test_a_plan_that_fails_is_named_with_its_cause_and_the_next_one_runs(worker, fault):
    kind, says = KINDS[fault]
    plan = BY_FAULT[fault]
    with pytest.raises(PlanFailure) as caught:
        worker.race([plan], 2, seed=0)
    assert (caught.value.kind, caught.value.plan) == (kind, plan)
    assert says in caught.value.what
    assert len(worker.race([GOOD], 2, seed=0)[GOOD].rounds) == 2


def test_the_one_that_failed_in_company_is_the_one_that_is_named(worker):
    with pytest.raises(PlanFailure) as caught:
        worker.race([GOOD, BY_FAULT["exits"]], 4, seed=0)
    assert caught.value.plan == BY_FAULT["exits"]


def test_a_wrong_output_is_found_across_the_process_boundary(worker):
    worker.verify(GOOD)
    with pytest.raises(PlanFailure) as caught:
        worker.verify(BY_FAULT["scales by 1 %"])
    assert caught.value.kind == "wrong result"


def end_idle(worker, number):
    """End a worker that has nothing to do."""
    worker.free_bytes()
    os.kill(worker._worker.pid, number)
    worker._worker._process.join()


def test_a_worker_killed_while_idle_costs_nothing(worker):
    end_idle(worker, signal.SIGKILL)
    assert worker.race([GOOD], 1, seed=0)[GOOD].rounds
    end_idle(worker, signal.SIGKILL)
    assert GOOD.get("num_kv_splits") in {
        p.get("num_kv_splits") for p in worker.plan_space(WORKLOAD.shapes).plans
    }


def test_a_renewed_bench_measures_in_another_process_with_the_same_session(worker):
    first = worker._worker.pid
    assert worker.renew()
    worker.load(WORKLOAD)
    assert worker._worker.pid != first
    assert worker.race([GOOD], 1, seed=0)[GOOD].rounds


def test_the_processes_that_follow_start_with_the_first_session_and_take_over_in_turn(tmp_path):
    worker = WorkerBench("cpu", tmp_path / "worker.log", LIMITS, renewals=2)
    try:
        assert not worker._spares, "before a session is asked for nobody knows what to import"
        worker.open(SETUP)
        spares = [spare.pid for spare in worker._spares]
        assert len(spares) == 2
        end_idle(worker, signal.SIGKILL)
        worker.load(WORKLOAD)
        assert worker._worker.pid == spares[0]
        assert len(worker._spares) == 2, "the one that took a dead one's place is made up for"
        spares = [spare.pid for spare in worker._spares]
        for left in (1, 0):
            worker.renew()
            worker.load(WORKLOAD)
            assert worker._worker.pid == spares.pop(0)
            assert len(worker._spares) == left, "none starts while the last winners race"
        assert worker.race([GOOD], 1, seed=0)[GOOD].rounds
    finally:
        worker.close()


def test_a_spare_that_has_died_is_passed_over_and_none_outlives_its_bench(tmp_path):
    worker = WorkerBench("cpu", tmp_path / "worker.log", LIMITS, renewals=2)
    worker.open(SETUP)
    first, second = worker._spares
    os.kill(first.pid, signal.SIGKILL)
    worker.renew()
    worker.load(WORKLOAD)
    assert worker._worker is second
    worker.renew()
    worker.open(SETUP)
    worker.close()
    assert not worker._spares
    assert all(process.is_gone for process in (first, second))


def test_a_worker_that_ended_before_a_plans_turn_is_not_that_plans_fault(worker):
    end_idle(worker, signal.SIGABRT)
    assert worker.race([GOOD], 1, seed=0)[GOOD].rounds


@pytest.mark.parametrize(
    ("found", "starts"),
    [
        # What the new workers find, and how many are started.
        ([None, None, 1005], 3),  # hot at first
        ([1020], 1),  # a step of the clock is no other lock
        (["silent"], 1),
        ([None, None, None], None),
        ([1410, 1410, 1410], None),
    ],
)
def test_new_workers_that_find_the_clock_locked_elsewhere_end_the_run(
    worker, monkeypatch, found, starts
):
    before = replace(worker.environment, locked_sm_clock_mhz=1005)
    looks = [
        replace(worker.environment, unwatched="clocks (NVML: unknown error)")
        if mhz == "silent"
        else replace(before, locked_sm_clock_mhz=mhz)
        for mhz in found
    ]
    began, real = [], worker._started

    def started_as_found():
        is_last = len(began) + 1 == starts
        began.append(real() if is_last else SimpleNamespace(kill=lambda: None))
        began[-1].environment = looks[len(began) - 1]
        return began[-1]

    worker.close()
    monkeypatch.setattr(worker, "environment", before)
    monkeypatch.setattr(worker, "_started", started_as_found)
    monkeypatch.setattr(worker, "CLOCK_PAUSE_S", 0.0)
    if starts is None:
        with pytest.raises(EnvironmentFailure, match=r"; .* it was locked at 1005 MHz"):
            worker.race([GOOD], 1, seed=0)
        assert len(began) == WorkerBench.START_ATTEMPTS
    else:
        assert worker.race([GOOD], 1, seed=0)[GOOD].rounds
        assert len(began) == starts


def test_a_process_in_which_nothing_can_be_captured_any_more_measures_nothing_more(tmp_path):
    losing = Plan(num_kv_splits=9)
    worker = started(tmp_path, partial(faulty_bench, {losing: "loses a capture"}))
    try:
        with pytest.raises(PlanFailure, match="not permitted when stream is capturing") as caught:
            worker.race([GOOD, losing], 2, seed=0)
        assert (caught.value.kind, caught.value.plan) == ("raised", losing)
        assert len(worker.race([GOOD], 2, seed=0)[GOOD].rounds) == 2
        assert worker.restarts == 1
    finally:
        worker.close()


def test_what_a_worker_prints_goes_to_its_log(worker):
    with pytest.raises(PlanFailure):
        worker.race([BY_FAULT["raises"]], 1, seed=0)
    assert "Traceback" in worker.log.read_text()


def test_a_worker_killed_in_the_middle_of_a_race_is_replaced_and_asked_again(tmp_path):
    worker = started(tmp_path, partial(KilledOnce, tmp_path / "mark"))
    try:
        assert len(worker.race([GOOD], 2, seed=0)[GOOD].rounds) == 2
        assert worker.restarts == 1
    finally:
        worker.close()


def test_a_time_out_gets_a_second_try_in_a_new_worker(tmp_path):
    worker = started(tmp_path, partial(HangsOnce, tmp_path / "mark"))
    try:
        assert len(worker.race([GOOD], 2, seed=0)[GOOD].rounds) == 2
        assert worker.restarts == 1
    finally:
        worker.close()


def test_somebody_who_keeps_ending_workers_stops_the_run_and_no_plan_is_to_blame(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(second_try, "ATTEMPTS_FROM_OUTSIDE", 2)
    worker = started(tmp_path, partial(EndedFromOutside, signal.SIGTERM))
    try:
        with pytest.raises(EnvironmentFailure, match="ended by SIGTERM 2 times"):
            worker.race([GOOD], 2, seed=0)
    finally:
        worker.close()


def test_a_full_disk_changes_no_cause_and_is_no_plans_fault(tmp_path):
    full = Plan(num_kv_splits=9)
    faults = FAULTS | {full: "fills the disk"}
    worker = started(tmp_path, partial(faulty_bench_without_room, faults))
    try:
        with pytest.raises(PlanFailure) as caught:
            worker.race([BY_FAULT["raises"]], 2, seed=0)
        assert caught.value.kind == "raised"
        with pytest.raises(EnvironmentFailure, match="no room to write: No space left"):
            worker.race([full], 2, seed=0)
        assert worker.race([GOOD], 1, seed=0)[GOOD].rounds
        assert worker.restarts == 0
    finally:
        worker.close()


def test_a_backend_whose_worker_dies_while_it_opens_fails_its_workloads_only(tmp_path):
    worker = WorkerBench("cpu", tmp_path / "worker.log", LIMITS, DiesOnOpen)
    try:
        with pytest.raises(WorkloadFailure, match="ended twice when asked to open") as caught:
            worker.open(SETUP)
        assert "worker.log" in caught.value.remedy
        assert worker.free_bytes() > 0
    finally:
        worker.close()


def test_a_worker_that_does_not_start_is_a_failure_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(WorkerBench, "START_ATTEMPTS", 1)
    with pytest.raises(EnvironmentFailure, match="no worker starts on cpu"):
        WorkerBench("cpu", tmp_path / "worker.log", LIMITS, end_at_once)


def test_a_device_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="device cuda:99 is not there"):
        WorkerBench("cuda:99", tmp_path / "worker.log", LIMITS)


def test_a_workload_that_cannot_be_loaded_fails_alone(worker):
    with pytest.raises((WorkloadFailure, UnavailableError)):
        worker.load(workload("40000q1s128k"))
    worker.load(WORKLOAD)
    assert worker.race([GOOD], 1, seed=0)[GOOD].rounds


def test_a_study_over_plans_that_fail_in_every_way_ends_with_a_verdict(worker, tmp_path):
    plans = (Plan(num_kv_splits=4), GOOD, *FAULTS)
    quarantine = Quarantine(tmp_path / "quarantine.yaml")
    journal = Journal(tmp_path / "a.journal")
    tuner = Tuner(
        WithPlans(worker, plans),
        journal,
        quarantine,
        WARD,
        Settings(confirmation_rounds=8, min_speedup=1.5, trial_rounds=4),
    )
    try:
        entry = tuner.tune(WORKLOAD)
    finally:
        journal.close()
    assert entry.plan == UNTUNED
    filed = yaml.safe_load(quarantine.path.read_text())["quarantine"]
    causes = {f["plan"]["num_kv_splits"]: f["reason"].partition(":")[0] for f in filed}
    expected = {BY_FAULT[fault].get("num_kv_splits"): kind for fault, (kind, _) in KINDS.items()}
    assert expected.items() <= causes.items()
    assert set(causes.values()) <= {kind for kind, _ in KINDS.values()} | {"wrong result"}


class WithPlans:
    """A worker whose plans are given."""

    def __init__(self, worker, plans):
        self._worker, self._plans = worker, plans

    def __getattr__(self, name):
        return getattr(self._worker, name)

    def plan_space(self, shapes):
        from mla_tune.plan.space import PlanSpace

        del shapes
        return PlanSpace(self._plans, len(self._plans))


def test_a_bench_that_another_thread_stops_answers_nothing_more(tmp_path):
    """Not the plan's doing: nothing is blamed, and no other worker starts."""
    worker = started(tmp_path, partial(faulty_bench, FAULTS), replace(LIMITS, sample_s=60.0))
    worker.load(WORKLOAD)
    ended = []

    def waits():
        try:
            worker.race([BY_FAULT["sleeps"]], 1, 0)
        except Exception as error:
            ended.append(error)

    waiter = threading.Thread(target=waits)
    waiter.start()
    waiter.join(timeout=1.0)
    assert waiter.is_alive()
    worker.stop()
    waiter.join(timeout=30.0)
    assert [type(error) for error in ended] == [Stopped]
    with pytest.raises(Stopped):
        worker.verify(GOOD)
    assert worker.restarts == 0
