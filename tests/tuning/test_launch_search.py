import os
import signal

import pytest
from launch_cases import (
    LAUNCHES,
    WORKLOADS,
    LaunchedBench,
    plans_of_all,
    table_job,
    tuned,
)

from fake_device import FakeBench, splits
from mla_tune.measuring.recording import RecordedBench, Recorder, Recording, RecordingFile
from mla_tune.plan.launch import launch_of
from mla_tune.plan.plan import Plan
from mla_tune.tuning.api import SilentReporter
from mla_tune.tuning.launch_search import SURVIVORS


class Listener(SilentReporter):
    """Keeps what it is told of the search for launches, and every trial."""

    def __init__(self):
        self.searches = []
        self.found = []
        self.trials = []
        self.dropped = {}
        self.costs = []

    def searching(self, job, workload, num_launches):
        del job
        self.searches.append((str(workload), num_launches))

    def launches_found(self, job, launches):
        del job
        self.found.append(launches)

    def tried(self, workload, outcome, best_us):
        del best_us
        self.trials.append((str(workload), outcome.plan))
        if outcome.latency_us is None:
            self.dropped[outcome.plan] = outcome.dropped

    def spent(self, job, cost):
        del job
        self.costs.append(cost)


def regret(bench, workload, plan):
    """How far a plan is above the best of the whole plan space."""
    space = bench.plan_space(workload.shapes).plans
    best_us = min(bench.expected_us(each, workload) for each in space)
    return bench.expected_us(plan or space[0], workload) / best_us - 1


def test_it_is_as_good_as_all_plans_at_a_seventh_of_the_compilations(tmp_path):
    regrets, shares = [], []
    for seed in range(3):
        bench = LaunchedBench(seed=seed)
        (table,) = tuned(tmp_path / str(seed), bench, rounds=96).tables
        assert len(bench.plan_space(WORKLOADS[0].shapes).plans) > 400
        regrets += [
            regret(bench, workload, entry.plan)
            for workload, entry in zip(WORKLOADS, table.entries, strict=True)
        ]
        shares.append(len(bench.compiled) / len(plans_of_all(bench)))
        assert table.cost.kernels == len(bench.compiled)
        assert table.cost.compiling_s == pytest.approx(len(bench.compiled))
    assert sum(regrets) / len(regrets) < 0.01
    assert max(shares) < 0.15


def test_few_launches_of_three_representatives_go_to_every_shape(tmp_path):
    listener, bench = Listener(), LaunchedBench()
    tuned(tmp_path, bench, reporter=listener)
    assert listener.searches == [
        ("12q1s{1k,4k,16k}", len(LAUNCHES)),
        ("q1s{1k,4k,16k}", SURVIVORS),
        ("128q1s{1k,4k,16k}", SURVIVORS),
    ]
    (found,) = listener.found
    assert 1 <= len(found) <= 3
    last = {launch_of(plan) for shape, plan in listener.trials if shape == "256q1s{1k,4k,16k}"}
    assert last == {Plan(), *found}


def test_none_and_all(tmp_path):
    few = LAUNCHES[:4]
    for asked, expected in (("none", set()), ("all", set(few))):
        listener = Listener()
        job = table_job(tmp_path / asked, workloads=WORKLOADS[2:3])
        tuned(tmp_path / asked, LaunchedBench(launches=few), asked, job, listener)
        assert listener.searches == []
        assert {launch_of(plan) for _, plan in listener.trials} - {Plan()} == expected


def test_an_eager_table_has_vllms_launch_unless_asked(tmp_path):
    for asked, searches in ((None, False), ("few", True)):
        listener, folder = Listener(), tmp_path / str(asked)
        job = table_job(folder, mode="eager", workloads=WORKLOADS[2:3])
        tuned(folder, LaunchedBench(launches=LAUNCHES[:4]), asked, job, listener)
        assert bool(listener.searches) is searches


def test_a_table_of_one_shape(tmp_path):
    bench, listener = LaunchedBench(seed=5), Listener()
    job = table_job(tmp_path, workloads=WORKLOADS[2:3])
    (table,) = tuned(tmp_path, bench, job=job, reporter=listener).tables
    assert len(listener.searches) == 1
    assert regret(bench, WORKLOADS[2], table.entries[0].plan) < 0.03


def test_a_backend_without_launch_constants_notices_nothing(tmp_path):
    class Plain(FakeBench):
        environment = LaunchedBench.environment

    latencies = {splits(256): 100.0, splits(8): 50.0}
    trials = []
    for asked in (None, "none"):
        listener = Listener()
        tuned(tmp_path / str(asked), Plain(latencies), asked, reporter=listener)
        assert listener.searches == listener.found == []
        trials.append(listener.trials)
    assert trials[0] == trials[1]


def test_what_is_no_faster_is_not_taken_to_every_shape(tmp_path):
    class Slower(LaunchedBench):
        def _factor(self, launch, rows):
            del rows
            return 1.3 if launch else 1.0

    listener = Listener()
    job = table_job(tmp_path, workloads=WORKLOADS[1:4])
    (table,) = tuned(tmp_path, Slower(launches=LAUNCHES[:6]), job=job, reporter=listener).tables
    assert listener.found == [()]
    assert all(not launch_of(entry.plan) for entry in table.entries)


def test_a_launch_that_does_not_compile_is_dropped_with_its_reason(tmp_path):
    job = table_job(tmp_path, workloads=WORKLOADS[2:3])
    few = LAUNCHES[:6]
    best = tuned(tmp_path / "first", LaunchedBench(launches=few), job=job).tables[0].entries[0]
    assert launch_of(best.plan)
    bench, listener = LaunchedBench(launches=few), Listener()
    hung = {
        plan: "timed out"
        for plan in bench.plan_space(WORKLOADS[2].shapes).plans
        if launch_of(plan) == launch_of(best.plan)
    }
    bench.compile_faults = hung
    job = table_job(tmp_path / "again", workloads=WORKLOADS[2:3])
    (table,) = tuned(tmp_path / "again", bench, job=job, reporter=listener).tables
    assert not {plan for _, plans in bench.raced for plan in plans} & set(hung)
    told = {plan: why for plan, why in listener.dropped.items() if plan in hung}
    assert told
    assert told == {plan: f"quarantined: timed out: scripted for {plan}" for plan in told}
    assert not {entry.plan for entry in table.entries} & set(hung)


# Without noise a run takes the same steps whenever it is made.
SMALL = {"noise": 0.0, "launches": LAUNCHES[:7]}


class Killed(Listener):
    """Writes down every trial, and is killed at one of the device's steps."""

    def __init__(self, path, kill_at):
        super().__init__()
        self.path = path
        self.left = kill_at

    def tried(self, workload, outcome, best_us):
        super().tried(workload, outcome, best_us)
        with self.path.open("a") as file:
            file.write(f"{workload} {outcome.plan}\n")

    def step(self, _what):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def run_until(folder, kill_at):
    listener = Killed(folder / "trials", kill_at)
    bench = LaunchedBench(before=listener.step, **SMALL)
    tuned(folder, bench, job=table_job(folder, workloads=WORKLOADS[1:3]), reporter=listener)
    return listener


def test_after_a_kill_in_the_search_nothing_is_lost_or_measured_twice(tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    listener = run_until(whole, kill_at=0)
    steps = -listener.left
    for kill_at in range(2, steps // 2, steps // 10):
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        child = os.fork()
        if child == 0:
            run_until(folder, kill_at)
            os._exit(0)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        again = run_until(folder, kill_at=0)
        assert again.found == listener.found
        assert (folder / "trials").read_text() == (whole / "trials").read_text()
        assert (folder / "table.yaml").read_bytes() == (whole / "table.yaml").read_bytes()


def test_a_finished_run_again_measures_nothing(tmp_path):
    job = table_job(tmp_path, workloads=WORKLOADS[2:4])
    (table,) = tuned(tmp_path, LaunchedBench(**SMALL), job=job).tables
    again, listener = LaunchedBench(**SMALL), Listener()
    (same,) = tuned(tmp_path, again, job=job, reporter=listener).tables
    assert (again.raced, again.compiled, listener.trials) == ([], [], [])
    assert same.entries == table.entries
    assert len(listener.found) == 1


def test_a_recording_of_a_search_is_played_back(tmp_path):
    path = tmp_path / "recording"
    file = RecordingFile(path)
    bench = LaunchedBench(**SMALL)
    job = table_job(tmp_path, workloads=WORKLOADS[2:4])
    (table,) = tuned(tmp_path / "first", Recorder(bench, file), job=job).tables
    file.close()
    for asked in (None, "all"):
        played = RecordedBench(Recording.load(path))
        (same,) = tuned(tmp_path / str(asked), played, asked, job=job).tables
        assert [entry.plan for entry in same.entries] == [entry.plan for entry in table.entries]
        assert not any(entry.note for entry in same.entries)


def test_all_plans_of_a_shape_are_recorded_side_by_side(tmp_path):
    path = tmp_path / "recording"
    file = RecordingFile(path)
    bench = LaunchedBench(launches=LAUNCHES[:4])
    job = table_job(tmp_path, workloads=WORKLOADS[1:3])
    tuned(tmp_path / "first", Recorder(bench, file, every_plan_rounds=5), "all", job=job)
    file.close()
    for track in Recording.load(path).tracks:
        assert {plan: len(rounds) for plan, rounds in track.rounds.items()} == dict.fromkeys(
            bench.plan_space(track.workload.shapes).plans, 5
        )
    assert bench.compiled[:1] == [bench.plan_space(WORKLOADS[1].shapes).default]
