from datetime import datetime, timedelta

import pytest
from campaign_cases import LATENCIES, WORKLOADS, SilentReporter, bench, run, screened, table_job

from fake_device import FakeBench, splits, workload
from mla_tune.errors import UnavailableError, WorkloadFailure
from mla_tune.plan.plan import UNTUNED
from mla_tune.table import Table, TableFile
from mla_tune.tuning.campaign import Campaign
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.settings import Settings


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
    reporter = run(tmp_path, again).reporter
    assert (again.raced, again.checked) == ([], [])
    assert [key for key, _ in reporter.known] == ["8q1s1k", "8q1s2k"]
    assert all(datetime.now() - at < timedelta(hours=1) for _, at in reporter.known)
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
    assert [(entry.plan, entry.unproven) for entry in entries] == [(UNTUNED, splits(2))] * 2
    assert campaign.reporter.stayed == []


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


FASTER = LATENCIES | {splits(16): 50.0}


def plans_in(folder):
    return [entry.plan for entry in TableFile.load(folder / "heads=2.yaml").entries]


def test_again_measures_what_is_decided_anew_and_keeps_it_until_then(tmp_path):
    run(tmp_path, bench())
    assert plans_in(tmp_path) == [splits(2)] * 2
    seen = []

    class Ends(SilentReporter):
        def started(self, *_of):
            seen.append(plans_in(tmp_path))
            if len(seen) == 2:
                raise KeyboardInterrupt

    settings = Settings(confirmation_rounds=16, processes=1)
    second = Campaign(FakeBench(FASTER), tmp_path / "study", settings, Ends(), again=True)
    with pytest.raises(KeyboardInterrupt):
        second.run([table_job(tmp_path)])
    assert seen[0] == [splits(2)] * 2
    assert plans_in(tmp_path) == [splits(16), splits(2)]

    rest = FakeBench(FASTER)
    run(tmp_path, rest)  # without it, the next run goes on
    assert plans_in(tmp_path) == [splits(16)] * 2
    assert {key for key, _ in screened(rest)} == {"8q1s2k"}
