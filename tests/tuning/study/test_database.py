import tempfile
from pathlib import Path

import pytest

import postgres
from fake_device import DEFAULT, splits
from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.tuning.study import Outcome, Policy, Subject
from mla_tune.tuning.study.database import StudyDatabase, check_storage_url

PLANS = (DEFAULT, splits(1), splits(2))
SUBJECT = Subject("a", {"backend": "A"})


@pytest.fixture(scope="module")
def server():
    # Not pytest's folder: the server runs as another user, and paths of sockets are short.
    with tempfile.TemporaryDirectory(prefix="pg") as folder, postgres.server(Path(folder)) as url:
        yield url


@pytest.fixture(params=["postgres", "sqlite"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/studies.db"
    return request.getfixturevalue("server")


def kept(journal):
    """Two trials and a verdict."""
    ledger = journal.ledger("q1s1k", PLANS, Policy())
    for plan, latency_us in ((DEFAULT, 100.0), (splits(1), 90.0)):
        ledger.tell(Outcome(plan, latency_us, rounds=((latency_us,),)))
    ledger.decide({"terms": {}, "entry": {}})


def test_studies_are_there_for_the_next_run(url):
    subject = Subject("next", {"backend": url[:4]})
    first = StudyDatabase(url)
    kept(first.journal(subject))
    first.close()
    second = StudyDatabase(url)
    journal = second.journal(subject)
    assert [outcome.plan for outcome in journal.outcomes("q1s1k", PLANS)] == [DEFAULT, splits(1)]
    assert next(journal.ledger("q1s1k", PLANS, Policy()).pending()) == splits(2)
    assert journal.with_verdict() == {"q1s1k"}
    assert second.journal(Subject("other", {"backend": "?"})).with_verdict() == frozenset()
    second.close()


def test_the_study_of_a_workload_with_a_long_key_has_a_name_that_fits(server):
    database = StudyDatabase(server)
    key = "+".join(["32q1s{1k,4k}", *(f"{n}q1s1k_12q1s9k" for n in range(100))])
    database.journal(SUBJECT).ledger(key, PLANS, Policy())
    database.close()


def test_a_claim_is_one_runs_until_it_is_given_back_or_its_run_ends(server):
    one, other = StudyDatabase(server), StudyDatabase(server)
    assert one.claims.claim("unit")
    assert one.claims.claim("unit"), "it has it already"
    assert not other.claims.claim("unit")
    assert other.claims.claim("another")
    one.claims.release("unit")
    assert other.claims.claim("unit")
    assert not one.claims.claim("unit")
    other.close()
    assert one.claims.claim("unit")
    one.close()


def test_a_file_of_sqlites_is_one_runs(tmp_path):
    url = f"sqlite:///{tmp_path}/deep/studies.db"
    database = StudyDatabase(url)
    with pytest.raises(InputError, match="in use by another run"):
        StudyDatabase(url)
    database.close()
    StudyDatabase(url).close()


def test_a_server_that_is_gone_is_a_failure_of_the_environment_that_names_no_password(server):
    with pytest.raises(InputError) as caught:
        StudyDatabase("postgresql://me:secret@127.0.0.1:1/x")
    assert "me:***@127.0.0.1:1" in caught.value.what
    assert "secret" not in str(caught.value)
    database = StudyDatabase(server)
    database.close()
    with pytest.raises(EnvironmentFailure, match="cannot be reached"), database.failures_named():
        database.claims.claim("unit")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://a/b", "a database of mysql"),
        ("sqlite://", "no file"),
        ("sqlite:///:memory:", "no file"),
        ("://", "not the URL"),
        ("postgresql://host:port/x", "not the URL"),
        ("nothing://x", "a database of nothing"),
    ],
)
def test_what_is_no_database_for_studies_is_refused(url, problem):
    with pytest.raises(InputError, match=problem) as caught:
        check_storage_url(url)
    assert "postgresql://" in caught.value.valid


@pytest.mark.parametrize("name", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_is_spoken_by_psycopg(name):
    assert check_storage_url(f"{name}://u@h/d").drivername == "postgresql+psycopg"
