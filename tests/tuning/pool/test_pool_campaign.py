"""Runs that share their studies in PostgreSQL: each trial is taken once, whoever dies."""

import os
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
from pool_cases import LATENCIES, SPECS, gpu, jobs, members, plans

import postgres
from fake_device import splits
from mla_tune.tuning.pool import pool
from mla_tune.tuning.pool.campaign import PoolCampaign
from mla_tune.tuning.reporters import SilentReporter
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.study import Subject
from mla_tune.tuning.study.database import StudyDatabase

UNITS = [(heads, spec) for heads in (2, 4) for spec in SPECS[:4]]
ALL = {(f"Fake-heads={heads}", spec): (splits(8), 3) for heads, spec in UNITS}
TRIALS = {(str(heads), spec, str(plan)) for heads, spec in UNITS for plan in LATENCIES}


@pytest.fixture(scope="module")
def server():
    with tempfile.TemporaryDirectory(prefix="pg") as folder, postgres.server(Path(folder)) as url:
        yield url


class Log(SilentReporter):
    """Appends each trial to a file, once it is in the study."""

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._heads = 0

    def started(self, job, workload):
        del workload
        self._heads = job.setup.model.num_q_heads

    def tried(self, workload, outcome, best_us):
        del best_us
        os.write(self._file, f"{self._heads} {workload} {outcome.plan}\n".encode())


def drive(url, folder, number):
    """One run with a device of its own."""
    database = StudyDatabase(url)
    bench = gpu(number, before=lambda _what: time.sleep(0.002))
    campaign = PoolCampaign(
        members=members(bench),
        journals=lambda job, found: database.journal(
            Subject.of(job.header, f"{folder} {found.software_digest}")
        ),
        study_dir=folder / f"study{number}",
        settings=Settings(confirmation_rounds=16, confirmation_s=600.0),
        reporter=Log(folder / f"trials{number}"),
        claims=database.claims,
    )
    kind = campaign.members[0].kind
    with database.failures_named():
        result = campaign.run({kind: jobs(folder, specs=SPECS[:4])})
    database.close()
    assert not result.failures
    assert sum(len(table.entries) for table in result.tables) == len(ALL)


def forked(url, folder, number):
    """`drive` in a process of its own, which has ended well with a status of 0."""
    child = os.fork()
    if child == 0:
        pool.PAUSE_S = 0.05
        try:
            drive(url, folder, number)
        except BaseException as error:
            (folder / f"error{number}").write_text(repr(error))
            os._exit(1)
        os._exit(0)
    return child


def trials(folder):
    lines = [line for log in folder.glob("trials*") for line in log.read_text().splitlines()]
    return Counter(tuple(line.split(" ", 2)) for line in lines)


def ended(folder, children):
    statuses = [os.waitpid(child, 0)[1] for child in children]
    errors = [path.read_text() for path in folder.glob("error*")]
    assert statuses == [0] * len(children), errors


def test_eight_runs_take_each_trial_once(server, tmp_path):
    ended(tmp_path, [forked(server, tmp_path, number) for number in range(8)])
    assert set(trials(tmp_path)) == TRIALS
    assert_none_is_lost_or_taken_twice(tmp_path)
    assert sum(bool(log.read_text()) for log in tmp_path.glob("trials*")) > 1


def kill_one(count, children, folder):
    """SIGKILL for the first of ``children`` that has so many trials; returns the others."""
    deadline = time.monotonic() + 60
    while True:
        for number, child in enumerate(children):
            log = folder / f"trials{number}"
            if log.exists() and len(log.read_text().splitlines()) >= count:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return [other for other in children if other != child]
        assert time.monotonic() < deadline, [path.read_text() for path in folder.glob("error*")]
        time.sleep(0.005)


def assert_none_is_lost_or_taken_twice(folder):
    taken = trials(folder)
    assert len(TRIALS - set(taken)) <= 1, "in the study, and killed before it was told"
    assert set(taken.values()) == {1}
    assert plans(folder) == ALL


def test_a_run_that_is_killed_is_resumed_by_the_next(server, tmp_path):
    kill_one(6, [forked(server, tmp_path, 0)], tmp_path)
    before = trials(tmp_path)
    assert sum(before.values()) < len(TRIALS)
    ended(tmp_path, [forked(server, tmp_path, 1)])
    assert not before - trials(tmp_path)
    assert_none_is_lost_or_taken_twice(tmp_path)


def test_what_a_killed_run_had_goes_to_those_beside_it(server, tmp_path):
    children = [forked(server, tmp_path, number) for number in range(3)]
    ended(tmp_path, kill_one(2, children, tmp_path))
    assert_none_is_lost_or_taken_twice(tmp_path)
