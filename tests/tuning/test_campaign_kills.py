import json
import os
import random
import signal
from pathlib import Path

import pytest
from campaign_cases import (
    assert_goes_on_where_it_was,
    bench,
    run,
)

from mla_tune.tuning.journal.file import JournalFile

# Kill -9. The run goes on in a forked process that is killed at one of its steps: whenever it
# asks the device for something, syncs a file, or renames one.


class Steps:
    """Counts the steps of this process, and kills it at one of them."""

    def __init__(self, kill_at: int) -> None:
        self.taken = 0
        self._kill_at = kill_at

    def step(self, _what: object = None) -> None:
        self.taken += 1
        if self.taken == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, real):
        def stepping(*arguments, **named):
            self.step()
            result = real(*arguments, **named)
            self.step()
            return result

        return stepping


def run_until(folder: Path, kill_at: int) -> int:
    """Run in a process of its own, killed at a step; returns its wait status."""
    child = os.fork()
    if child == 0:
        try:
            steps = Steps(kill_at)
            os.fsync = steps.around(os.fsync)
            Path.replace = steps.around(Path.replace)
            run(folder, bench(before=steps.step))
            (folder / "steps").write_text(str(steps.taken))
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.fixture(scope="module")
def num_steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert run_until(folder, kill_at=0) == 0
    return int((folder / "steps").read_text())


SHARDS = 8


@pytest.mark.parametrize("shard", range(SHARDS))
def test_after_a_kill_at_any_step_nothing_is_lost_or_measured_twice(tmp_path, num_steps, shard):
    assert num_steps > 60
    for kill_at in range(1 + shard, num_steps + 1, SHARDS):
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        assert os.WTERMSIG(run_until(folder, kill_at)) == signal.SIGKILL
        assert_goes_on_where_it_was(folder)


def test_after_several_kills_in_a_row_nothing_is_lost_or_measured_twice(tmp_path, num_steps):
    dice = random.Random()
    points = [dice.randint(1, num_steps) for _ in range(6)]
    for kill_at in points:
        run_until(tmp_path, kill_at)
    try:
        assert_goes_on_where_it_was(tmp_path)
    except AssertionError as error:
        raise AssertionError(f"killed at {points}") from error


def run_until_torn(folder: Path, append: int) -> int:
    """As `run_until`, killed in the middle of writing a line of the journal."""
    child = os.fork()
    if child == 0:
        try:
            real, left = JournalFile.append_logs, [append]

            def append_or_tear(backend, logs):
                left[0] -= 1
                if left[0] == 0:
                    line = json.dumps(logs[-1]).encode()
                    with backend.path.open("ab") as file:
                        file.write(line[: random.Random(append).randint(1, len(line))])
                    os.kill(os.getpid(), signal.SIGKILL)
                real(backend, logs)

            JournalFile.append_logs = append_or_tear
            run(folder, bench())
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("append", range(1, 14, 2))
def test_a_line_torn_by_a_kill_costs_at_most_its_own_trial(tmp_path, append):
    assert os.WTERMSIG(run_until_torn(tmp_path, append)) == signal.SIGKILL
    assert_goes_on_where_it_was(tmp_path)
