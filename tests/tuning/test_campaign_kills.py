import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from campaign_cases import (
    assert_goes_on_where_it_was,
    bench,
    run,
    table_job,
)

from fake_device import DEFAULT, BiasedBench, guarded, splits
from mla_tune.table import TableFile
from mla_tune.tuning.journal.file import JournalFile
from mla_tune.tuning.study.ledger import RACE

GAIN = {DEFAULT: 100.0, splits(2): 90.0}

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


def killed_at(kill_at: int, folder: Path, work: Callable[[Steps], None]) -> int:
    """Do ``work`` in a process of its own, killed at a step; returns its wait status.

    How many steps it took stands in ``folder`` if it came to its end.
    """
    child = os.fork()
    if child == 0:
        try:
            steps = Steps(kill_at)
            os.fsync = steps.around(os.fsync)
            work(steps)
            (folder / "steps").write_text(str(steps.taken))
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def run_until(folder: Path, kill_at: int) -> int:
    """A run, killed at a step."""

    def work(steps: Steps) -> None:
        Path.replace = steps.around(Path.replace)
        run(folder, bench(before=steps.step))

    return killed_at(kill_at, folder, work)


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


def confirm_until(folder: Path, kill_at: int) -> int:
    """As `run_until`, with winners that race in two other processes."""

    def work(steps: Steps) -> None:
        run(folder, BiasedBench(GAIN, before=steps.step), processes=3)

    return killed_at(kill_at, folder, work)


def test_after_a_kill_no_unconfirmed_plan_is_published_and_no_kept_race_is_repeated(tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    assert confirm_until(whole, kill_at=0) == 0
    num_steps = int((whole / "steps").read_text())
    for kill_at in range(2, num_steps + 1, 3):
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        assert os.WTERMSIG(confirm_until(folder, kill_at)) == signal.SIGKILL
        table = folder / "heads=2.yaml"
        early = TableFile.load(table).entries if table.exists() else ()
        assert all(entry.processes == 3 for entry in early)
        kept = kept_races(folder)
        run(folder, BiasedBench(GAIN), processes=3)
        assert kept_races(folder)[: len(kept)] == kept
        assert len(kept_races(folder)) == 4
        entries = TableFile.load(table).entries
        assert [(entry.plan, entry.processes) for entry in entries] == [(splits(2), 3)] * 2


REFUSED = {
    plan: {1024: us, 2048: 99.0 if plan == DEFAULT else 96.0}
    for plan, us in {DEFAULT: 100.0, splits(2): 50.0, splits(8): 60.0}.items()
}


def tuned_again(folder: Path, **more) -> None:
    """A run in which other processes refuse the plan that won, and its runner-up wins."""
    jobs = [table_job(folder, workloads=[guarded("8q1s1k")])]
    run(folder, BiasedBench(REFUSED, slower_from={splits(2): 1}, **more), jobs, processes=3)


def tune_again_until(folder: Path, kill_at: int) -> int:
    """As `confirm_until`, of `tuned_again`."""
    return killed_at(kill_at, folder, lambda steps: tuned_again(folder, before=steps.step))


def test_after_a_kill_the_runner_up_of_a_refused_plan_is_in_the_same_table(tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    assert tune_again_until(whole, kill_at=0) == 0
    table = (whole / "heads=2.yaml").read_bytes()
    assert table.count(b"num_kv_splits: 8") == 1
    num_steps = int((whole / "steps").read_text())
    # From about where it is refused: what comes before is as in the test above.
    for kill_at in range(num_steps * 2 // 3, num_steps + 1, 2):
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        assert os.WTERMSIG(tune_again_until(folder, kill_at)) == signal.SIGKILL
        kept = kept_races(folder)
        tuned_again(folder)
        assert (folder / "heads=2.yaml").read_bytes() == table
        assert kept_races(folder)[: len(kept)] == kept
        assert len(kept_races(folder)) == 4
        (journal,) = (folder / "study").glob("*.journal")
        assert journal.read_text().count('"outcome"') == len(REFUSED)


def kept_races(folder: Path) -> list[bytes]:
    """The lines of the journal that hold races of later processes."""
    (journal,) = (folder / "study").glob("*.journal")
    return [line for line in journal.read_bytes().split(b"\n") if RACE.encode() in line]
