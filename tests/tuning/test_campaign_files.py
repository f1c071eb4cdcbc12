import errno
import os
import time

import pytest
from campaign_cases import (
    assert_goes_on_where_it_was,
    bench,
    run,
    table_job,
)

from fake_device import ENVIRONMENT, workload
from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.table import TableFile, publication
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.study import Journal

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
