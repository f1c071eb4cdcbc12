import pytest
from campaign_cases import run, table_job
from tuner_cases import trials

from fake_device import DEFAULT, BiasedBench, guarded, splits
from mla_tune.errors import WorkloadFailure
from mla_tune.plan.plan import UNTUNED
from mla_tune.table import TableFile
from mla_tune.tuning import confirmed

# A plan that wins its first look, and that other processes find slower at one guard.

WORKLOADS = guarded("8q1s1k"), guarded("2q1s1k")
LISTED = {DEFAULT: 100.0, splits(1): 70.0, splits(2): 50.0, splits(8): 60.0}
LATENCIES = {
    plan: {1024: us, 2048: 99.0 if plan == DEFAULT else 96.0} for plan, us in LISTED.items()
}


def bench(slower_from=None, latencies=LATENCIES, **more):
    return BiasedBench(latencies, slower_from=slower_from or {splits(2): 1}, **more)


def tuned(folder, measured, processes=3, workloads=WORKLOADS):
    return run(folder, measured, [table_job(folder, workloads=workloads)], processes=processes)


def num_trials(folder):
    (journal,) = (folder / "study").glob("*.journal")
    return journal.read_text().count('"outcome"')


def entries(folder):
    return TableFile.load(folder / "heads=2.yaml").entries


def test_where_other_processes_refuse_the_winner_the_runner_up_is_published(tmp_path):
    measured = bench(noise=0.002)
    campaign = tuned(tmp_path, measured)
    assert [(e.plan, e.processes) for e in entries(tmp_path)] == [(splits(8), 3)] * 2
    for entry in entries(tmp_path):
        assert entry.note.startswith("num_kv_splits=2 over 3 processes: 2.00×")
        assert entry.note.endswith("slower at one KV length")
        assert splits(2) not in entry.ties
    told = campaign.reporter
    assert told.nominations == [(str(w), splits(s)) for s in (2, 8) for w in WORKLOADS]
    assert told.decisions == [(str(w), splits(8)) for w in WORKLOADS]
    assert [what.endswith("tuned again without it") for what in told.notices] == [True] * 2
    assert num_trials(tmp_path) == len(WORKLOADS) * len(LATENCIES)
    assert measured.process == 4


def test_only_the_workload_whose_plan_was_refused_is_tuned_again(tmp_path):
    class SlowerAtOne(BiasedBench):
        def _is_slower(self, plan, shape):
            return shape.num_requests == 8 and super()._is_slower(plan, shape)

    campaign = tuned(tmp_path, SlowerAtOne(LATENCIES, slower_from={splits(2): 1}))
    assert {e.shape: e.plan for e in entries(tmp_path)} == {
        str(WORKLOADS[0]): splits(8),
        str(WORKLOADS[1]): splits(2),
    }
    assert campaign.reporter.renewals == [2, 2, 1, 1]


def test_two_plans_are_refused_and_then_the_default_stays(tmp_path):
    measured = bench({splits(2): 1, splits(8): 3, splits(1): 5})
    campaign = tuned(tmp_path, measured)
    for entry in entries(tmp_path):
        assert entry.plan == UNTUNED
        assert "num_kv_splits=8 over 3 processes" in entry.note
        assert "num_kv_splits=2 over 3 processes" in entry.note
    assert measured.process == 4
    assert [plan for _, plan in campaign.reporter.decisions] == [UNTUNED] * 2
    assert_unchanged_by(tmp_path, bench({splits(1): 99}))


def assert_unchanged_by(folder, measured, **more):
    """Another run measures nothing, and leaves every byte of the table."""
    before = (folder / "heads=2.yaml").read_bytes()
    tuned(folder, measured, **more)
    assert (measured.raced, measured.process) == ([], 0)
    assert (folder / "heads=2.yaml").read_bytes() == before


def test_a_run_after_a_refusal_finds_everything_decided(tmp_path):
    tuned(tmp_path, bench())
    assert_unchanged_by(tmp_path, bench(seed=1))


@pytest.mark.parametrize("refused", [{splits(2): 1}, {splits(2): 1, splits(8): 3}])
def test_what_was_refused_is_never_published_though_more_processes_are_asked_for(tmp_path, refused):
    tuned(tmp_path, bench(refused))
    before = [entry.plan for entry in entries(tmp_path)]
    sound = bench({splits(1): 99})
    tuned(tmp_path, sound, processes=5)
    assert [entry.plan for entry in entries(tmp_path)] == before
    assert all(refused.keys().isdisjoint(plans) for _, plans in sound.raced)


def test_without_another_plan_the_default_stays_and_says_what_was_seen(tmp_path):
    two = {plan: LATENCIES[plan] for plan in (DEFAULT, splits(2))}
    tuned(tmp_path, bench(latencies=two))
    for entry in entries(tmp_path):
        assert (entry.plan, entry.unproven, entry.ties) == (UNTUNED, None, ())
        assert "num_kv_splits=2 over 3 processes" in entry.note
    assert_unchanged_by(tmp_path, bench(latencies=two))


def test_one_process_alone_refuses_too(tmp_path, monkeypatch):
    # It does where its rounds are noisy; here, what gains most is called slower.
    monkeypatch.setattr(confirmed, "slows", lambda case, _num_cases: case.median > 1.9)
    campaign = tuned(tmp_path, bench(), processes=1)
    assert [(e.plan, e.processes) for e in entries(tmp_path)] == [(splits(8), 1)] * 2
    assert "num_kv_splits=2 in one process" in campaign.reporter.notices[0]


class Ends(BiasedBench):
    """Stops the run, or fails, once the last process has raced all and is to tune again."""

    error = KeyboardInterrupt
    loaded = 0

    def load(self, workload):
        self.loaded += self.process == 2
        if self.loaded > len(WORKLOADS):
            raise self.error
        super().load(workload)


def test_a_run_that_ends_before_the_second_tuning_ends_in_the_same_table(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    tuned(whole, bench())
    with pytest.raises(KeyboardInterrupt):
        tuned(cut, Ends(LATENCIES, slower_from={splits(2): 1}))
    assert not (cut / "heads=2.yaml").exists()
    rest = bench()
    tuned(cut, rest)
    assert trials(rest) == []
    assert all(splits(2) not in plans for _, plans in rest.raced)
    assert (cut / "heads=2.yaml").read_bytes() == (whole / "heads=2.yaml").read_bytes()


def test_a_workload_that_cannot_be_tuned_again_stays_open(tmp_path):
    first = Ends(LATENCIES, slower_from={splits(2): 1})
    first.error = WorkloadFailure("cannot load: it is broken")
    campaign = tuned(tmp_path, first)
    assert {failure.error for failure in campaign.tally.failures} == {first.error}
    tuned(tmp_path, bench())
    assert [(e.plan, e.processes) for e in entries(tmp_path)] == [(splits(8), 3)] * 2
