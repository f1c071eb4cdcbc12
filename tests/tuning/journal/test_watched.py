import pytest

from fake_device import DEFAULT, splits
from mla_tune.errors import InputError
from mla_tune.tuning.journal.watched import WatchedJournal
from mla_tune.tuning.study import Journal, Outcome, Policy

PLANS = (DEFAULT, splits(1), splits(2), splits(8))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.journal"


@pytest.fixture
def running(path):
    """The journal of a run that is going on."""
    journal = Journal(path)
    yield journal
    journal.close()


def num_trials(watched):
    watched.refresh()
    storage = watched.storage
    return [storage.get_n_trials(study._study_id) for study in storage.get_all_studies()]


def tell(journal, plan, workload="8q1s1k"):
    journal.ledger(workload, PLANS, Policy()).tell(Outcome(plan, 1.0))


def test_what_a_run_writes_is_seen_and_its_file_left_alone(path, running):
    tell(running, DEFAULT)
    watched = WatchedJournal(path)
    assert num_trials(watched) == [1]
    for plan in PLANS[1:]:
        tell(running, plan)
        tell(running, plan, "8q1s2k")
    before = path.read_bytes()
    assert num_trials(watched) == [4, 3]
    assert path.read_bytes() == before


def test_half_a_line_waits_for_its_other_half(path, running):
    tell(running, DEFAULT)
    watched = WatchedJournal(path)
    tell(running, splits(1))
    whole = path.read_bytes()
    for cut in (1, 60):
        path.write_bytes(whole[:-cut])
        assert num_trials(watched) == [1]
    path.write_bytes(whole)
    assert num_trials(watched) == [2]


def test_damage_costs_the_line_that_it_is_in(path, running):
    tell(running, DEFAULT)
    watched = WatchedJournal(path)
    with path.open("ab") as file:
        file.write(b"\0\0\0\n")
    tell(running, splits(1))
    tell(running, splits(2))
    assert num_trials(watched) == [3]
    assert num_trials(WatchedJournal(path)) == [3]


def test_a_file_in_the_place_of_another_is_read_anew(path, tmp_path):
    for name, told in (("a.journal", PLANS), ("b.journal", PLANS[:1])):
        journal = Journal(tmp_path / name)
        for plan in told:
            tell(journal, plan)
        journal.close()
    watched = WatchedJournal(path)
    assert num_trials(watched) == [4]
    (tmp_path / "b.journal").replace(path)
    assert num_trials(watched) == [1]
    path.unlink()
    assert num_trials(watched) == [1]


def test_it_is_for_reading(path, running):
    tell(running, DEFAULT)
    with pytest.raises(NotImplementedError):
        WatchedJournal(path).storage.create_new_study([])


def test_what_is_no_file_is_refused(path):
    path.mkdir()
    with pytest.raises(InputError, match="a folder"):
        WatchedJournal(path)
