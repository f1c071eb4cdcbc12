import json
import os

import pytest

from fake_device import DEFAULT, splits
from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.tuning.study import Journal, Outcome, Policy

PLANS = (DEFAULT, splits(1), splits(2), splits(8))
ENUMERATE = Policy()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study" / "a.journal"


@pytest.fixture
def opened(path):
    """Open the journal, closing what was open: one run after another."""
    journals = []

    def open_journal():
        while journals:
            journals.pop().close()
        journals.append(Journal(path))
        return journals[0]

    yield open_journal
    while journals:
        journals.pop().close()


def told(ledger, limit=100, latency=lambda plan: float(plan.get("num_kv_splits")), dropped=""):
    """Tell up to ``limit`` of the pending plans, and return them."""
    tried = []
    for plan in ledger.pending():
        if len(tried) == limit:
            break
        latency_us = latency(plan)
        ledger.tell(Outcome(plan, latency_us, dropped, ((latency_us or 0.0,),)))
        tried.append(plan)
    return tried


def test_every_plan_is_tried_once_the_default_first(opened):
    ledger = opened().ledger("8q1s1k", PLANS, ENUMERATE)
    assert told(ledger) == list(PLANS)
    assert told(ledger) == []


def test_what_was_good_before_is_tried_right_after_the_default(opened):
    ledger = opened().ledger("8q1s1k", PLANS, ENUMERATE, [splits(8), splits(99), splits(2)])
    assert told(ledger) == [DEFAULT, splits(8), splits(2), splits(1)]


def test_a_later_run_goes_on_with_the_plans_that_are_left(opened):
    told(opened().ledger("8q1s1k", PLANS, ENUMERATE), limit=2)
    ledger = opened().ledger("8q1s1k", PLANS, ENUMERATE)
    assert [outcome.plan for outcome in ledger.outcomes()] == list(PLANS[:2])
    assert told(ledger) == list(PLANS[2:])


def test_an_outcome_reads_back_whole(opened):
    rounds = ((1.25, 2.5), (1.5, 2.75))
    outcomes = [
        Outcome(DEFAULT, 1.875, "", rounds),
        Outcome(splits(1), 3.5, "screened out", rounds),
        Outcome(splits(2), None, "died: SIGSEGV"),
    ]
    ledger = opened().ledger("8q1s1k", PLANS, ENUMERATE)
    for outcome in outcomes:
        ledger.tell(outcome)
    assert ledger.outcomes() == outcomes
    assert opened().ledger("8q1s1k", PLANS, ENUMERATE).outcomes() == outcomes


def test_a_verdict_survives(opened):
    verdict = {"terms": {"min_speedup": 1.01}, "entry": {"plan": "default"}}
    opened().ledger("8q1s1k", PLANS, ENUMERATE).decide(verdict)
    assert opened().ledger("8q1s1k", PLANS, ENUMERATE).verdict == verdict


def verdict_for(plan):
    return {"terms": {}, "entry": {"plan": dict(plan)}}


def test_a_verdict_that_names_a_refused_plan_is_void_until_there_is_another(opened):
    ledger = opened().ledger("8q1s1k", PLANS, ENUMERATE)
    ledger.decide(verdict_for(splits(2)))
    ledger.confirm({"entry": {"plan": "default"}}, {splits(2): "slower"})
    journal = opened()
    assert (journal.verdict("8q1s1k", PLANS), journal.with_verdict()) == (None, frozenset())
    ledger = journal.ledger("8q1s1k", PLANS, ENUMERATE)
    assert (ledger.verdict, ledger.refused) == (None, {splits(2): "slower"})
    ledger.decide(verdict_for(splits(8)))
    ledger.confirm({"entry": {"plan": dict(splits(8))}})
    journal = opened()
    assert journal.verdict("8q1s1k", PLANS) == verdict_for(splits(8))
    assert journal.ledger("8q1s1k", PLANS, ENUMERATE).refused == {splits(2): "slower"}


def test_after_the_last_refusal_its_end_is_the_verdict(opened):
    ledger = opened().ledger("8q1s1k", PLANS, ENUMERATE)
    for plan in (splits(2), splits(8)):
        ledger.decide(verdict_for(plan))
        ledger.confirm({"entry": {"plan": "default", "note": str(plan)}}, {plan: "slower"})
    ended = {"terms": {}, "entry": {"plan": "default", "note": str(splits(8))}}
    assert opened().verdict("8q1s1k", PLANS) == ended


def test_a_default_that_an_earlier_version_kept_stays(opened):
    ledger = opened().ledger("8q1s1k", PLANS, ENUMERATE)
    ledger.decide(verdict_for(splits(2)))
    ledger.confirm({"entry": {"plan": "default", "note": "slower at one KV length"}})
    assert opened().verdict("8q1s1k", PLANS) == verdict_for(splits(2))
    assert ledger.refused == {}


def test_workloads_and_spaces_have_studies_of_their_own(opened):
    journal = opened()
    told(journal.ledger("8q1s1k", PLANS, ENUMERATE))
    assert journal.ledger("8q1s2k", PLANS, ENUMERATE).outcomes() == []
    assert journal.ledger("8q1s1k", PLANS[:3], ENUMERATE).outcomes() == []


def test_patience_ends_a_study_that_gets_no_better(opened):
    ledger = opened().ledger("8q1s1k", PLANS, Policy(patience=2))
    assert told(ledger, latency=lambda plan: PLANS.index(plan) + 1.0) == list(PLANS[:3])


def test_patience_does_not_run_out_while_nothing_works(opened):
    ledger = opened().ledger("8q1s1k", PLANS, Policy(patience=1))
    assert told(ledger, latency=lambda _plan: None, dropped="raised: boom") == list(PLANS)


@pytest.mark.parametrize("name", ["random", "tpe"])
@pytest.mark.parametrize("dropped", ["", "screened out", "raised: boom"])
def test_a_sampler_never_has_a_plan_measured_twice(opened, name, dropped):
    def latency(plan):
        return None if dropped.startswith("raised") else float(plan.get("num_kv_splits"))

    policy = Policy(name, budget=4)
    tried = told(opened().ledger("8q1s1k", PLANS, policy), latency=latency, dropped=dropped)
    assert tried[0] == DEFAULT
    assert len(set(tried)) == len(tried)
    more = told(opened().ledger("8q1s1k", PLANS, policy), latency=latency, dropped=dropped)
    assert not set(more) & set(tried)


def test_a_sampled_trial_that_a_kill_cut_short_is_tried_again(opened):
    policy = Policy("random", budget=4)
    ledger = opened().ledger("8q1s1k", PLANS, policy)
    assert next(ledger.pending()) == DEFAULT
    again = opened().ledger("8q1s1k", PLANS, policy)
    assert told(again)[0] == DEFAULT


def test_large_spaces_are_sampled():
    assert Policy.for_space(100).name == "enumerate"
    assert Policy.for_space(101).name == "gp"


TORN = {
    "half a line": b'{"op_code":4,"worker_id":"x","tri',
    "half a line with an end": b'{"op_code":4,"worker_id":"x","tri\n',
    "zeros, as after a power cut": b"\x00\x00\x00\x00",
}


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_last_line_costs_no_finished_trial(opened, path, torn):
    journal = opened()
    told(journal.ledger("8q1s1k", PLANS, ENUMERATE), limit=2)
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + TORN[torn])
    ledger = opened().ledger("8q1s1k", PLANS, ENUMERATE)
    assert path.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in path.read_bytes().splitlines())
    assert told(ledger) == list(PLANS[2:])


def test_a_line_cut_anywhere_costs_at_most_the_trial_it_held(opened, path):
    journal = opened()
    told(journal.ledger("8q1s1k", PLANS, ENUMERATE), limit=3)
    journal.close()
    whole = path.read_bytes()
    start = whole.rstrip(b"\n").rfind(b"\n") + 1
    for end in range(start, len(whole) - 1, 25):
        path.write_bytes(whole[:end])
        ledger = opened().ledger("8q1s1k", PLANS, ENUMERATE)
        assert [outcome.plan for outcome in ledger.outcomes()] == list(PLANS[:2])
        assert next(ledger.pending()) == PLANS[2]


def test_an_empty_journal_is_a_new_one(opened, path):
    path.parent.mkdir()
    path.touch()
    assert told(opened().ledger("8q1s1k", PLANS, ENUMERATE)) == list(PLANS)


def test_a_trial_is_one_line_of_the_journal(opened, path):
    ledger = opened().ledger("8q1s1k", PLANS, ENUMERATE)
    before = len(path.read_bytes().splitlines())
    told(ledger)
    lines = path.read_bytes().splitlines()
    assert len(lines) == before + len(PLANS)
    assert all(json.loads(line) for line in lines)


def test_two_runs_cannot_share_a_journal(opened, path):
    opened()
    with pytest.raises(InputError) as caught:
        Journal(path)
    assert str(path) in caught.value.what
    assert "--study-dir" in caught.value.remedy


def test_a_lock_that_a_killed_run_left_does_not_stop_the_next(opened, path):
    path.parent.mkdir()
    path.with_name(path.name + ".lock").symlink_to(path)
    assert told(opened().ledger("8q1s1k", PLANS, ENUMERATE)) == list(PLANS)


def test_a_folder_that_cannot_be_written_is_an_error_that_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFailure, match="cannot be written"):
        Journal(tmp_path / "file" / "a.journal")


def test_a_full_disk_is_an_error_that_says_so_and_loses_nothing(opened, monkeypatch):
    ledger = opened().ledger("8q1s1k", PLANS, ENUMERATE)
    told(ledger, limit=2)

    def full(_handle):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(EnvironmentFailure, match="No space left"):
            told(ledger)
    kept = opened().ledger("8q1s1k", PLANS, ENUMERATE).outcomes()
    assert {outcome.plan for outcome in kept} >= set(PLANS[:2])


def test_ctrl_c_while_a_trial_is_written_is_ctrl_c(opened, monkeypatch):
    ledger = opened().ledger("8q1s1k", PLANS, ENUMERATE)

    def interrupt(_handle):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            told(ledger)
    left = told(opened().ledger("8q1s1k", PLANS, ENUMERATE))
    assert set(PLANS[1:]) <= set(left)


def test_a_journal_in_memory_needs_no_file():
    assert told(Journal.in_memory().ledger("8q1s1k", PLANS, ENUMERATE)) == list(PLANS)
