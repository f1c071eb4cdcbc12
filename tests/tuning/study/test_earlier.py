import shutil
from pathlib import Path

import pytest

from fake_device import DEFAULT, splits
from mla_tune.tuning.study import Journal, Outcome, Policy

DONE = Path(__file__).parents[2] / "data" / "seeds" / "done.journal"
"""Of a version whose trials had the position of a plan as their one parameter."""

PLANS = (DEFAULT, splits(1), splits(2), splits(8))


@pytest.fixture
def path(tmp_path):
    return Path(shutil.copy(DONE, tmp_path / "a.journal"))


def opened(path):
    journal = Journal(path)
    try:
        ledger = journal.ledger("8q1s1k", PLANS, Policy())
        found = (ledger.outcomes(), ledger.verdict, ledger.confirmed, list(ledger.pending()))
        (study,) = [s for s in journal._storage.get_all_studies() if " #" in s.study_name]
        return *found, journal._storage.get_all_trials(study._study_id)
    finally:
        journal.close()


def test_an_earlier_study_goes_on_with_named_parameters(path):
    outcomes, verdict, _, left, trials = opened(path)
    assert {outcome.plan for outcome in outcomes} == set(PLANS)
    assert left == []
    assert verdict is not None
    assert verdict["entry"]["shape"] == "8q1s1k"
    assert {trial.params["num_kv_splits"] for trial in trials} == {4, 1, 2, 8}


def test_it_is_taken_over_once(path):
    first = opened(path)
    size = path.stat().st_size
    assert opened(path)[:4] == first[:4]
    assert path.stat().st_size == size


def test_it_can_be_read_before_it_is_taken_over(path):
    journal = Journal(path)
    size = path.stat().st_size
    assert len(journal.outcomes("8q1s1k", PLANS)) == len(PLANS)
    assert journal.verdict("8q1s1k", PLANS) is not None
    journal.close()
    assert path.stat().st_size == size


def test_what_a_kill_left_out_is_copied_by_the_next_run(path):
    outcomes, verdict, *_ = opened(path)
    lines = path.read_bytes().splitlines(keepends=True)
    old = len(DONE.read_bytes().splitlines())
    for number in range(old, len(lines)):
        path.write_bytes(b"".join(lines[:number]))
        found = opened(path)
        assert (found[0], found[1]) == (outcomes, verdict)


def test_what_is_told_later_is_not_overwritten(path):
    journal = Journal(path)
    ledger = journal.ledger("8q1s1k", PLANS, Policy())
    ledger.decide({"terms": {}, "entry": {"plan": "later"}})
    journal.close()
    assert opened(path)[1] == {"terms": {}, "entry": {"plan": "later"}}


def test_a_new_workload_has_nothing_to_take_over(path):
    journal = Journal(path)
    ledger = journal.ledger("8q1s2k", PLANS, Policy())
    ledger.tell(Outcome(DEFAULT, 1.0))
    assert [outcome.plan for outcome in ledger.outcomes()] == [DEFAULT]
    journal.close()
