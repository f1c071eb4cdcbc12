import json
import os
import random
import re

import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from fake_device import DEFAULT, splits
from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.tuning.study import Journal, Outcome, Policy

ENUMERATE = Policy()
PLANS = (DEFAULT, splits(1), splits(2), splits(8))
WORKLOADS = ("8q1s1k", "8q1s2k", "8q1s4k")
VERDICT = {"terms": {"min_speedup": 1.01}, "entry": {"plan": "default"}}
OURS = re.compile(rb'(,"study":"[^"]*")?,"at":\[\d+,\d+\],"sum":"[0-9a-f]{8}"')


def outcome(plan, latency_us=None):
    latency_us = latency_us or plan.get("num_kv_splits") + 0.5
    return Outcome(plan, latency_us, "", ((latency_us,), (latency_us,)))


def write(path, policy=ENUMERATE):
    journal = Journal(path)
    for workload in WORKLOADS:
        ledger = journal.ledger(workload, PLANS, policy)
        for plan in ledger.pending():
            ledger.tell(outcome(plan))
        ledger.decide(VERDICT)
    journal.close()
    return path.read_bytes()


def read(path, policy=ENUMERATE):
    """What a run finds: (workload, plan) to outcome; the notices; and the verdicts."""
    journal = Journal(path)
    try:
        ledgers = {name: journal.ledger(name, PLANS, policy) for name in WORKLOADS}
        told = {
            (name, found.plan): found for name in WORKLOADS for found in ledgers[name].outcomes()
        }
        verdicts = {name: ledger.verdict for name, ledger in ledgers.items() if ledger.verdict}
        return told, journal.notices, verdicts
    finally:
        journal.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study" / "a.journal"


@pytest.fixture(name="whole")
def _whole(path):
    return write(path)


ALL = {(name, plan): outcome(plan) for name in WORKLOADS for plan in PLANS}


def lines_with(whole, number, text):
    """The journal with line ``number``, from one, replaced by ``text``."""
    lines = whole.split(b"\n")
    lines[number - 1] = text
    return b"\n".join(lines)


def line(whole, number):
    return whole.split(b"\n")[number - 1]


# Line 1 creates the first study, 2 to 4 say of what it is, 5 to 8 are its trials, 9 its verdict;
# and so on.
LINES = 9
SAID = 4
LAST = LINES * len(WORKLOADS)


def test_a_whole_journal_is_left_as_it_is(path, whole):
    told, notices, verdicts = read(path)
    assert (told, notices) == (ALL, ())
    assert verdicts == dict.fromkeys(WORKLOADS, VERDICT)
    assert path.read_bytes() == whole


NO_LOSS = {
    "a blank line": lambda whole: lines_with(whole, 3, line(whole, 3) + b"\n"),
    "a line of NULs between": lambda whole: lines_with(whole, 3, line(whole, 3) + b"\n" + bytes(9)),
    "two records in one line": lambda whole: lines_with(
        whole, 3, line(whole, 3) + line(whole, 4)
    ).replace(line(whole, 4) + b"\n" + line(whole, 4) + b"\n", line(whole, 4) + b"\n"),
    "a torn record before a whole one": lambda whole: lines_with(
        whole, 3, line(whole, 9)[:60] + line(whole, 3)
    ),
}


@pytest.mark.parametrize("damage", NO_LOSS)
def test_damage_beside_the_records_loses_none_and_is_named_with_file_and_line(path, whole, damage):
    damaged = NO_LOSS[damage](whole)
    path.write_bytes(damaged)
    told, notices, verdicts = read(path)
    assert (told, len(verdicts)) == (ALL, 3)
    (notice,) = notices
    assert str(path) in notice
    assert re.search(r"line [34] cannot be used", notice)
    aside = path.with_name("a.journal.damaged-1")
    assert aside.name in notice
    assert aside.read_bytes() == damaged
    assert read(path)[:2] == (ALL, ())


LOST = {
    "a line of NULs": bytes(200),
    "half a line": b'{"op_code":4,"worker_id":"x","tri',
    "an operation that there is none of": b'{"op_code":99,"worker_id":"x","study_id":0}',
    "another file": b"\x7fELF\x02\x01",
    "brackets": b'{"op_code":' + b"[" * 100_000,
}


@pytest.mark.parametrize("number", range(1, LAST + 1))
@pytest.mark.parametrize("text", LOST)
def test_a_lost_line_costs_what_it_held_and_nothing_else(path, whole, number, text):
    path.write_bytes(lines_with(whole, number, LOST[text]))
    told, notices, verdicts = read(path)
    study, kind = divmod(number - 1, LINES)
    missing = {(WORKLOADS[study], PLANS[kind - SAID])} if SAID <= kind < LINES - 1 else set()
    assert told.keys() == ALL.keys() - missing
    assert told.items() <= ALL.items()
    assert len(verdicts) == (2 if kind == LINES - 1 else 3)
    assert len(notices) == (number < LAST or text.startswith("an op"))


def test_two_torn_lines_at_the_end_cost_themselves(path, whole):
    lines = whole.split(b"\n")[:-1]
    path.write_bytes(b"\n".join([*lines[:-2], lines[-2][:40], lines[-1][:40]]))
    told, notices, verdicts = read(path)
    assert told.keys() == ALL.keys() - {(WORKLOADS[2], PLANS[3])}
    assert (len(notices), len(verdicts)) == (1, 2)


@pytest.mark.parametrize("tail", [b"\n", b"\0", b"\0\n", b"x", b"{", b'{"op_code":4,"wor\n'])
def test_a_torn_end_is_cut_off_and_costs_nothing_before_it(path, whole, tail):
    path.write_bytes(whole + tail)
    for _ in range(2):
        assert read(path)[:2] == (ALL, ())
    assert path.read_bytes() == whole


def test_damage_is_set_aside_under_a_new_name_each_time(path, whole):
    for times in (1, 2, 3):
        path.write_bytes(lines_with(whole, 3, b""))
        read(path)
        assert len(list(path.parent.glob("*.damaged-*"))) == times


def as_earlier_versions_wrote(whole):
    return OURS.sub(b"", whole)


def test_a_journal_of_an_earlier_version_goes_on(path, whole):
    old = as_earlier_versions_wrote(whole)
    assert b"sum" not in old
    path.write_bytes(old)
    assert read(path) == (ALL, (), dict.fromkeys(WORKLOADS, VERDICT))
    assert path.read_bytes() == old


@pytest.mark.parametrize("number", range(1, LAST + 1))
def test_a_loss_in_a_journal_of_an_earlier_version_puts_no_trial_under_another_workload(
    path, whole, number
):
    path.write_bytes(lines_with(as_earlier_versions_wrote(whole), number, b"\0"))
    told, _, _ = read(path)
    assert told.items() <= ALL.items()
    before = {(WORKLOADS[study], plan) for study in range((number - 1) // LINES) for plan in PLANS}
    assert told.keys() >= before


def flipped(data, dice):
    position = dice.randrange(len(data))
    return data[:position] + bytes([data[position] ^ 1 << dice.randrange(8)]) + data[position + 1 :]


@pytest.mark.parametrize("policy", ["enumerate", "random"])
def test_no_flipped_bit_is_read_as_a_figure(path, policy):
    whole = write(path, Policy(policy))
    dice = random.Random(0)
    for _ in range(150):
        path.write_bytes(flipped(whole, dice))
        told, _, verdicts = read(path, Policy(policy))
        assert told.items() <= ALL.items()
        assert len(told) >= len(ALL) - 1
        assert all(verdict == VERDICT for verdict in verdicts.values())


def test_a_flipped_bit_of_an_earlier_versions_journal_ends_in_no_traceback(path, whole):
    old = as_earlier_versions_wrote(whole)
    dice = random.Random(1)
    for _ in range(150):
        path.write_bytes(flipped(old, dice))
        read(path)


def test_what_optuna_refuses_is_left_out(path, whole, monkeypatch):
    """The shape of records is checked first; this is for what a later Optuna may add."""
    monkeypatch.setattr(
        "mla_tune.tuning.journal.lines.is_whole", lambda record: isinstance(record, dict)
    )
    old = as_earlier_versions_wrote(whole)
    path.write_bytes(
        lines_with(old, 14, line(old, 14).replace(b"IntDistribution", b"IntDistributoin"))
    )
    told, notices, _ = read(path)
    # What comes after a loss in such a journal may be another workload's.
    assert told.keys() == {key for key in ALL if key[0] != WORKLOADS[2]} - {
        (WORKLOADS[1], PLANS[0])
    }
    assert "line 14, 19" in notices[0]


def test_a_last_line_that_lacks_only_its_end_is_whole(path, whole):
    path.write_bytes(whole[:-1])
    journal = Journal(path)
    journal.ledger("8q1s8k", PLANS, Policy()).tell(outcome(DEFAULT))
    journal.close()
    assert read(path)[:2] == (ALL, ())


def test_a_planted_link_is_not_followed(path, tmp_path, monkeypatch):
    path.parent.mkdir()
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in (path.with_name("a.journal.in-use"), path):
        name.symlink_to(precious)
        with monkeypatch.context() as patched:
            patched.setattr(os, "geteuid", lambda: 12345)
            patched.setattr("mla_tune.files.planted_links._owner_of_folder", lambda _link: 54321)
            with pytest.raises(InputError, match="is a link"):
                Journal(path)
        name.unlink()
    assert precious.read_text() == "mine"


def test_a_fifo_is_refused_at_once(path):
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(InputError, match="not a regular file"):
        Journal(path)


def test_no_room_for_a_line_leaves_no_part_of_it(path, monkeypatch):
    write(path)
    journal = Journal(path)
    ledger = journal.ledger("8q1s8k", PLANS, Policy())
    before = path.read_bytes()
    real = os.write

    def full(handle, data):
        if len(data) < 50:
            raise OSError(28, os.strerror(28))
        return real(handle, data[:-20])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(EnvironmentFailure, match="No space left"):
            ledger.tell(outcome(DEFAULT))
    journal.close()
    assert path.read_bytes() == before


def test_lines_are_json_that_optuna_reads_too(path, whole):
    assert all(json.loads(text) for text in whole.splitlines())
    studies = JournalStorage(JournalFileBackend(str(path))).get_all_studies()
    assert [study.study_name.partition(" #")[0] for study in studies] == list(WORKLOADS)
