import shutil
from pathlib import Path

from fake_device import DEFAULT, splits
from mla_tune.tuning.study import LAUNCHES_OF, Journal, Outcome, Policy, Subject

SEEDS = Path(__file__).parents[2] / "data" / "seeds"
PLANS = (DEFAULT, splits(1))


def test_a_journal_tells_which_workloads_have_a_verdict_whatever_their_plans(tmp_path):
    path = tmp_path / "a.journal"
    journal = Journal(path, Subject("a", {"backend": "A"}))
    journal.ledger("q1s1k", PLANS, Policy()).decide({"terms": {}})
    journal.ledger("q1s2k", PLANS, Policy())
    assert journal.with_verdict() == {"q1s1k"}
    journal.close()
    other = Journal(path, Subject("a", {"backend": "B"}))
    assert other.with_verdict() == frozenset()
    other.close()


def told(journal, workload):
    return [outcome.plan for outcome in journal.outcomes(workload, PLANS)]


def opened(path):
    return Journal(path, Subject("A 2 heads", {"backend": "A"}))


def test_what_is_forgotten_is_measured_in_another_study_and_stays(tmp_path):
    path = tmp_path / "a.journal"
    journal = opened(path)
    keys = ("q1s1k", f"{LAUNCHES_OF}q1s1k", "q1s2k")
    for key in keys:
        ledger = journal.ledger(key, PLANS, Policy())
        ledger.tell(Outcome(DEFAULT, 5.0))
        ledger.decide({"terms": {}})
    journal.forget({"q1s1k"})
    assert journal.with_verdict() == {*keys[2:]}
    assert [told(journal, key) for key in keys] == [[], [], [DEFAULT]]
    again = journal.ledger("q1s1k", PLANS, Policy())
    assert again.verdict is None
    again.tell(Outcome(splits(1), 4.0))
    journal.close()

    journal = opened(path)  # as after a kill
    assert told(journal, "q1s1k") == [splits(1)]
    journal.forget({"q1s1k"})
    assert told(journal, "q1s1k") == []
    journal.ledger("q1s1k", PLANS, Policy())
    names = [study.study_name for study in journal._storage.get_all_studies()]
    assert len([name for name in names if name.endswith((" again", " again 2"))]) == 2
    assert len(names) == 5
    journal.close()


def test_a_study_of_an_earlier_version_can_be_forgotten(tmp_path):
    path = Path(shutil.copy(SEEDS / "done.journal", tmp_path / "a.journal"))
    plans = (DEFAULT, splits(1), splits(2), splits(8))
    journal = Journal(path)
    assert journal.verdict("8q1s1k", plans) is not None
    journal.forget({"8q1s1k"})
    assert journal.verdict("8q1s1k", plans) is None
    assert journal.ledger("8q1s1k", plans, Policy()).outcomes() == []
    journal.close()
