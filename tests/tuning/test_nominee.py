import pytest

from fake_device import DEFAULT, splits, workload
from mla_tune.plan.plan import UNTUNED
from mla_tune.table import Entry, Speedup
from mla_tune.tuning.nominee import Nominee
from mla_tune.tuning.process_spread import MEASURED_SPREAD
from mla_tune.tuning.race import Race
from mla_tune.tuning.study import Journal, Policy

GATE = 1.01
ENTRY = Entry(
    shape="8q1s1k",
    plan=splits(2),
    default_plan=DEFAULT,
    latency_us=90.0,
    default_us=100.0,
    speedup=Speedup(median=1.111, low=1.108, high=1.114),
    note="no knob matters",
)


def race(plan_us: float = 90.0, *remarks: str, of: int = 2) -> Race:
    return Race(splits(of), ((100.0,),) * 16, ((plan_us,),) * 16, remarks)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "a.journal")
    yield journal
    journal.close()


def nominee(journal: Journal, entry: Entry = ENTRY, **terms: object) -> Nominee:
    ledger = journal.ledger("8q1s1k", (DEFAULT, splits(2)), Policy())
    return Nominee(workload(), entry, DEFAULT, ledger, terms)


def test_races_of_its_plan_are_found_again(journal):
    nominee(journal).add(race(90.0))
    nominee(journal).add(race(91.0))
    nominee(journal).add(race(50.0, of=8))
    looks = [look[0].latency_us for look in nominee(journal).looks]
    assert looks == [90.0, 90.0, 91.0]


def test_as_many_processes_look_as_are_asked_for(journal):
    found = nominee(journal)
    asked = []
    for _ in range(3):
        asked.append(found.wants_another(3, 5, MEASURED_SPREAD, GATE))
        found.add(race())
    assert asked == [True, True, False]


def test_where_the_gate_is_in_the_interval_more_look_but_not_without_end(journal):
    found = nominee(journal)
    while found.wants_another(3, 5, MEASURED_SPREAD, 1.111):
        found.add(race(90.01))
    assert len(found.looks) == 5


def test_a_decision_is_found_again_on_the_same_terms_only(journal):
    found = nominee(journal, processes=2)
    assert found.decided is None
    found.add(race())
    entry = found.decide(MEASURED_SPREAD, GATE)
    assert (entry.plan, entry.processes) == (splits(2), 2)
    assert nominee(journal, processes=2).decided == entry
    assert nominee(journal, processes=3).decided is None
    other = ENTRY.model_copy(update={"latency_us": 91.0})
    assert nominee(journal, other, processes=2).decided is None


def test_a_decision_that_is_no_entry_any_more_is_made_again(journal):
    found = nominee(journal)
    found.decide(MEASURED_SPREAD, GATE)
    found.ledger.confirm(found.ledger.confirmed | {"entry": {"shape": "8q1s1k", "speed": 2.0}})
    assert nominee(journal).decided is None


def test_what_befell_the_device_in_any_process_is_said_once(journal):
    found = nominee(journal)
    found.add(race(90.0, "no clean samples: hot"))
    found.add(race(90.0, "no clean samples: hot"))
    entry = found.decide(MEASURED_SPREAD, GATE)
    assert entry.note == "no knob matters. no clean samples: hot"


def test_a_plan_that_failed_is_not_raced_again(journal):
    found = nominee(journal)
    found.failure = splits(2), "died: SIGSEGV"
    assert not found.wants_another(3, 5, MEASURED_SPREAD, GATE)
    assert found.decide(MEASURED_SPREAD, GATE).plan == UNTUNED
