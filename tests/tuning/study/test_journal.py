from fake_device import DEFAULT, splits
from mla_tune.tuning.study import Journal, Policy, Subject

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
