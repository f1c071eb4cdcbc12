import errno
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from fake_device import DEFAULT, ENVIRONMENT, FakeBench, splits, workload
from mla_tune.errors import EnvironmentFailure, InputError, UnavailableError, WorkloadFailure
from mla_tune.session import Setup
from mla_tune.shapes import MlaDimensions
from mla_tune.table import Header, Table, TableFile, publication
from mla_tune.tuning.campaign import Campaign
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.journal.file import JournalFile
from mla_tune.tuning.observers import SilentObserver
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.study import Journal, Policy

LATENCIES = {DEFAULT: 100.0, splits(1): 150.0, splits(2): 90.0, splits(8): 70.0, splits(16): 98.0}
DIES = splits(8)
WORKLOADS = (workload("8q1s1k"), workload("8q1s2k"))


class SilentReporter(SilentObserver):
    """Keeps what it is told about the run as a whole."""

    def __init__(self):
        self.decisions = []
        self.notices = []
        self.errors = []
        self.abandoned = []
        self.stayed = []

    def begun(self, jobs):
        pass

    def skipped(self, what):
        self.notices.append(what)

    def started(self, job, workload):
        pass

    def kept(self, workload, doubt):
        del doubt
        self.stayed.append(str(workload))

    def decided(self, job, workload, entry):
        del job
        self.decisions.append((str(workload), entry.plan))

    def failed(self, job, workload, error):
        del job
        self.errors.append((str(workload), error))

    def given_up(self, job, workloads, error):
        self.abandoned.append((job.path.stem, len(workloads), error))

    def unpublished(self, job, entries, error):
        del job
        self.errors += [(entry.shape, error) for entry in entries]


def table_job(folder: Path, heads: int = 2, workloads=WORKLOADS) -> TableJob:
    model = MlaDimensions(heads)
    header = Header.of(ENVIRONMENT, "TORCH_MLA", model, "auto", "eager", 4096)
    path = folder / f"heads={heads}.yaml"
    return TableJob(Setup("TORCH_MLA", model), tuple(workloads), header, path)


def run(folder: Path, bench: FakeBench, jobs=None, **more) -> Campaign:
    settings = Settings(confirmation_rounds=16)
    campaign = Campaign(bench, folder / "study", settings, SilentReporter(), **more)
    campaign.run(jobs or [table_job(folder)])
    return campaign


def bench(**more) -> FakeBench:
    return FakeBench(LATENCIES, race_faults={DIES: "died"}, **more)


def screened(measured: FakeBench) -> set:
    """(workload, plan) of everything that was measured alone, as a trial is."""
    return {(key, plans[0]) for key, plans in measured.raced if len(plans) == 1}


def outcomes(folder: Path) -> dict:
    """What the journal holds, by workload."""
    paths = list((folder / "study").glob("*.journal"))
    if not paths:
        return {}
    journal = Journal(paths[0])
    plans = tuple(LATENCIES)
    try:
        return {str(w): journal.ledger(str(w), plans, Policy()).outcomes() for w in WORKLOADS}
    finally:
        journal.close()


def test_every_workload_gets_its_entry(tmp_path):
    campaign = run(tmp_path, bench())
    table = Table.load(tmp_path / "heads=2.yaml")
    assert [entry.shape for entry in table.entries] == ["8q1s1k", "8q1s2k"]
    assert table.lookup(batch=8, kv_len=1024).plan == splits(2)
    assert campaign.tally.failures == []


def test_a_second_run_measures_nothing_and_changes_no_byte(tmp_path):
    run(tmp_path, bench())
    before = (tmp_path / "heads=2.yaml").read_bytes()
    again = bench()
    run(tmp_path, again)
    assert (again.raced, again.checked) == ([], [])
    assert (tmp_path / "heads=2.yaml").read_bytes() == before


def test_jobs_have_tables_and_journals_of_their_own(tmp_path):
    run(tmp_path, bench(), [table_job(tmp_path, heads) for heads in (2, 4)])
    assert len(list(tmp_path.glob("*.yaml"))) == 2
    assert len(list((tmp_path / "study").glob("*.journal"))) == 2


class OneDoesNotLoad(FakeBench):
    def load(self, workload):
        if str(workload) == "8q1s1k":
            raise WorkloadFailure("cannot load: no memory [/x]")
        super().load(workload)


def test_a_workload_that_fails_leaves_the_others_to_be_tuned(tmp_path):
    campaign = run(tmp_path, OneDoesNotLoad(LATENCIES))
    assert [key for key, _ in campaign.reporter.decisions] == ["8q1s2k"]
    assert [(failed.what, failed.error.what) for failed in campaign.tally.failures] == [
        ("heads=2: 8q1s1k", "cannot load: no memory [/x]")
    ]


class CannotOpenTwoHeads(FakeBench):
    def open(self, setup):
        if setup.model.num_q_heads == 2:
            raise WorkloadFailure("the worker ended twice when asked to open")
        super().open(setup)


def test_a_session_that_cannot_be_built_leaves_the_other_tables_to_be_tuned(tmp_path):
    jobs = [table_job(tmp_path, heads) for heads in (2, 4)]
    campaign = run(tmp_path, CannotOpenTwoHeads(LATENCIES), jobs)
    assert len(campaign.tally.failures) == 1
    assert len(TableFile.load(tmp_path / "heads=4.yaml").entries) == 2


class NeverOpens(FakeBench):
    opened = 0

    def open(self, setup):
        del setup
        self.opened += 1
        raise WorkloadFailure("the worker ended twice when asked to open")


def test_a_session_that_cannot_be_built_is_tried_once_and_said_once(tmp_path):
    many = [workload(f"8q1s{number}k") for number in range(1, 59)]
    measured = NeverOpens(LATENCIES)
    campaign = run(tmp_path, measured, [table_job(tmp_path, 2, many)])
    assert measured.opened == 1
    assert [(failed.what, failed.error.exit_code) for failed in campaign.tally.failures] == [
        ("heads=2: 58 batch shapes", 1)
    ]
    assert [said[:2] for said in campaign.reporter.abandoned] == [("heads=2", 58)]
    assert campaign.reporter.errors == []


def test_a_cause_that_fails_three_workloads_in_a_row_ends_its_table_only(tmp_path):
    many = [workload(f"8q1s{number}k") for number in range(1, 9)]
    measured = FakeBench(LATENCIES, check_faults=dict.fromkeys(LATENCIES, "wrong result"))
    measured.before = lambda what: measured.check_faults.clear() if "q2" in what else None
    four = table_job(tmp_path, 4, [workload("8q2s1k")])
    campaign = run(tmp_path, measured, [table_job(tmp_path, 2, many), four])
    assert [failed.what for failed in campaign.tally.failures] == [
        *("heads=2: 8q1s1k", "heads=2: 8q1s2k", "heads=2: 8q1s3k", "heads=2: 5 batch shapes"),
    ]
    assert {key for key, _ in measured.checked} == {"8q1s1k", "8q1s2k", "8q1s3k", "8q2s1k"}
    assert len(TableFile.load(four.path).entries) == 1


def test_what_an_earlier_run_decided_is_published_although_its_table_is_given_up(tmp_path):
    many = [workload(f"8q1s{number}k") for number in range(1, 9)]
    run(tmp_path, FakeBench(LATENCIES), [table_job(tmp_path, 2, many[5:7])])
    (tmp_path / "heads=2.yaml").unlink()
    measured = FakeBench(LATENCIES, check_faults=dict.fromkeys(LATENCIES, "wrong result"))
    campaign = run(tmp_path, measured, [table_job(tmp_path, 2, many)])
    entries = TableFile.load(tmp_path / "heads=2.yaml").entries
    assert [entry.shape for entry in entries] == ["8q1s6k", "8q1s7k"]
    assert [key for key, _ in campaign.reporter.decisions] == ["8q1s6k", "8q1s7k"]
    assert {key for key, _ in measured.checked} == {"8q1s1k", "8q1s2k", "8q1s3k"}
    assert [said[:2] for said in campaign.reporter.abandoned] == [("heads=2", 3)]


def test_a_night_that_ends_in_doubt_leaves_a_proven_table_as_it_was(tmp_path):
    run(tmp_path, bench())
    before = (tmp_path / "heads=2.yaml").read_bytes()
    for journal in (tmp_path / "study").glob("*.journal"):
        journal.unlink()
    settings = Settings(confirmation_s=0.0)
    campaign = Campaign(bench(), tmp_path / "study", settings, SilentReporter())
    campaign.run([table_job(tmp_path)])
    assert (tmp_path / "heads=2.yaml").read_bytes() == before
    assert campaign.reporter.stayed == ["8q1s1k", "8q1s2k"]


def test_what_replace_puts_aside_proves_nothing_for_the_table_that_is_begun(tmp_path):
    first = table_job(tmp_path)
    run(tmp_path, bench())
    for journal in (tmp_path / "study").glob("*.journal"):
        journal.unlink()
    header = first.header.model_copy(update={"kv_cache_dtype": "fp8"})
    again = TableJob(first.setup, first.workloads, header, first.path)
    settings = Settings(confirmation_s=0.0)
    campaign = Campaign(bench(), tmp_path / "study", settings, SilentReporter(), replace=True)
    campaign.run([again])
    entries = TableFile.load(tmp_path / "heads=2.yaml").entries
    assert [(entry.plan, entry.unproven) for entry in entries] == [(None, splits(2))] * 2
    assert campaign.reporter.stayed == []


BROKEN = ["not a table", "\0\0", "schema_version: 1\nentries: [", "{}", "&a [*a]"]


@pytest.mark.parametrize("text", BROKEN)
def test_a_table_that_cannot_be_read_costs_itself_and_the_others_are_tuned(tmp_path, text):
    two, four = (table_job(tmp_path, heads) for heads in (2, 4))
    two.path.write_text(text)
    campaign = run(tmp_path, bench(), [two, four])
    assert [(failed.what, failed.error.exit_code) for failed in campaign.tally.failures] == [
        ("heads=2: 2 batch shapes", 2)
    ]
    assert str(two.path) in campaign.tally.failures[0].error.what
    assert len(TableFile.load(four.path).entries) == 2
    assert two.path.read_text() == text


def test_where_no_table_can_be_added_to_nothing_is_measured(tmp_path):
    two = table_job(tmp_path)
    two.path.write_text("not a table")
    measured = bench()
    with pytest.raises(InputError, match=r"heads=2\.yaml"):
        run(tmp_path, measured, [two])
    assert measured.raced == []


def test_replace_puts_a_table_that_cannot_be_read_aside(tmp_path):
    (tmp_path / "heads=2.yaml").write_text("not a table")
    run(tmp_path, bench(), replace=True)
    assert len(TableFile.load(tmp_path / "heads=2.yaml").entries) == 2
    assert (tmp_path / "heads=2.yaml.replaced").read_text() == "not a table"


def test_a_study_that_another_run_holds_costs_its_own_table(tmp_path):
    name = f"heads=2.{ENVIRONMENT.software_digest}.journal"
    held = Journal(tmp_path / "study" / name)
    try:
        two, four = (table_job(tmp_path, heads) for heads in (2, 4))
        campaign = run(tmp_path, bench(), [two, four])
    finally:
        held.close()
    (failure,) = campaign.tally.failures
    assert "in use by another run" in failure.error.what
    assert len(TableFile.load(four.path).entries) == 2


def test_a_damaged_journal_is_named_and_the_run_goes_on(tmp_path):
    run(tmp_path, bench())
    (journal,) = (tmp_path / "study").glob("*.journal")
    lines = journal.read_bytes().split(b"\n")
    journal.write_bytes(b"\n".join([*lines[:2], b"\0\0", *lines[3:]]))
    again = bench()
    campaign = run(tmp_path, again)
    (notice,) = campaign.reporter.notices
    assert str(journal) in notice
    assert "line 3" in notice
    assert campaign.tally.failures == []
    assert again.raced == []  # the verdicts were in other lines


def test_a_damaged_quarantine_is_named_and_the_run_goes_on(tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "quarantine.yaml").write_text("quarantine:\n- backend: [\n")
    campaign = run(tmp_path, bench())
    (notice,) = campaign.reporter.notices
    assert "kept as quarantine.yaml.damaged-1" in notice
    assert campaign.tally.failures == []
    assert len(TableFile.load(tmp_path / "heads=2.yaml").entries) == 2


def full_disk_for_tables(monkeypatch, only_for=lambda _text: True):
    write = publication.write_atomically

    def write_or_not(path, text):
        if only_for(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, text)

    monkeypatch.setattr(publication, "write_atomically", write_or_not)


def test_a_full_disk_at_a_table_costs_no_verdict(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        full_disk_for_tables(patched)
        campaign = run(tmp_path, bench())
    assert [type(failed.error) for failed in campaign.tally.failures] == [EnvironmentFailure] * 2
    assert all("No space left" in failed.error.what for failed in campaign.tally.failures)
    again = bench()
    run(tmp_path, again)
    assert again.raced == []
    assert len(TableFile.load(tmp_path / "heads=2.yaml").entries) == 2


def test_a_disk_full_for_a_while_leaves_what_was_written_whole(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        full_disk_for_tables(patched, only_for=lambda text: "8q1s2k" in text)
        run(tmp_path, bench())
    entries = TableFile.load(tmp_path / "heads=2.yaml").entries
    assert [entry.shape for entry in entries] == ["8q1s1k"]


def test_what_is_decided_between_two_writes_is_on_disk_when_the_run_is_interrupted(
    tmp_path, monkeypatch
):
    write = publication.write_atomically
    written = []

    def slow(path, text):
        written.append(text)
        time.sleep(0.2)  # the next write is due in four seconds
        write(path, text)

    def interrupt(what):
        if what == "load 8q1s8k":
            raise KeyboardInterrupt

    monkeypatch.setattr(publication, "write_atomically", slow)
    workloads = [workload(f"8q1s{k}k") for k in (1, 2, 4, 8)]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, bench(before=interrupt), [table_job(tmp_path, workloads=workloads)])
    assert len(written) == 2
    entries = TableFile.load(tmp_path / "heads=2.yaml").entries
    assert [entry.shape for entry in entries] == ["8q1s1k", "8q1s2k", "8q1s4k"]


def test_a_table_that_breaks_during_a_run_costs_itself_and_no_other(tmp_path):
    two, four = (table_job(tmp_path, heads) for heads in (2, 4))

    def broken(what):
        if what == "load 8q1s1k":
            two.path.write_text("entries: [")

    campaign = run(tmp_path, bench(before=broken), [two, four])
    assert [failed.what for failed in campaign.tally.failures] == [
        "heads=2: 8q1s1k",
        "heads=2: 8q1s2k",
    ]
    assert "heads=2.yaml" in campaign.tally.failures[0].error.what
    assert two.path.read_text() == "entries: ["
    assert len(TableFile.load(four.path).entries) == 2


def test_a_full_disk_under_the_study_ends_the_run_and_loses_no_finished_trial(
    tmp_path, monkeypatch
):
    real, left = os.fsync, [12]

    def full(handle):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(EnvironmentFailure, match="No space left"):
            run(tmp_path, bench())
    assert_goes_on_where_it_was(tmp_path)


def test_replace_keeps_every_table_it_replaces(tmp_path):
    first = table_job(tmp_path)
    for dtype in ("auto", "bfloat16", "fp8"):
        header = first.header.model_copy(update={"kv_cache_dtype": dtype})
        again = TableJob(first.setup, first.workloads, header, first.path)
        told = run(tmp_path, bench(), [again], replace=True).reporter.notices
        assert bool(told) == (dtype != "auto")
    assert told == [
        f"--replace: {first.path} was for kv_cache_dtype bfloat16, this run is for fp8; "
        f"its 2 entries are kept in {first.path}.replaced1"
    ]
    kept = sorted(tmp_path.glob("heads=2.yaml*"))
    assert [TableFile.load(path).header.kv_cache_dtype for path in kept] == [
        *("fp8", "auto", "bfloat16"),
    ]


def test_without_a_reason_replace_replaces_nothing(tmp_path):
    run(tmp_path, bench())
    run(tmp_path, bench(), replace=True)
    assert [path.name for path in tmp_path.glob("heads=2.yaml*")] == ["heads=2.yaml"]


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


def assert_goes_on_where_it_was(folder: Path) -> None:
    """Finish a run that ended early: nothing lost, nothing measured twice, the same table."""
    told = outcomes(folder)
    again = bench()
    run(folder, again)
    finished = outcomes(folder)
    for key, before in told.items():
        assert finished[key][: len(before)] == before
        for outcome in before:
            assert (key, outcome.plan) not in screened(again)
    for trials in finished.values():
        assert {trial.plan for trial in trials} == set(LATENCIES)
        assert len(trials) == len(LATENCIES)
    table = TableFile.load(folder / "heads=2.yaml")
    assert [(entry.shape, entry.plan) for entry in table.entries] == [
        ("8q1s1k", splits(2)),
        ("8q1s2k", splits(2)),
    ]
    assert all("num_kv_splits=8 failed" in entry.note for entry in table.entries)


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


class NotWithTwoHeads(FakeBench):
    def open(self, setup):
        if setup.model.num_q_heads == 2:
            raise UnavailableError("not with 2 heads")
        super().open(setup)


def test_a_session_that_cannot_be_built_costs_its_own_table_only(tmp_path):
    two, four = (table_job(tmp_path, heads) for heads in (2, 4))
    campaign = run(tmp_path, NotWithTwoHeads(LATENCIES), [two, four])
    assert {str(failed.error) for failed in campaign.tally.failures} == {"not with 2 heads"}
    assert not two.path.exists()
    assert len(Table.load(four.path).entries) == len(WORKLOADS)
