import pytest
from pydantic import ValidationError

from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.table import Entry


def test_an_entry_reads_back_from_what_a_journal_stores():
    entry = Entry(
        shape="8q1s1k",
        plan=Plan(num_kv_splits=2),
        default_plan=Plan(num_kv_splits=4),
        ties=(UNTUNED, Plan(prefill_backend="a")),
        latency_us=1.5,
        default_us=2.5,
    )
    assert Entry.model_validate(entry.model_dump(mode="json")) == entry


def test_the_default_is_written_as_a_word():
    written = Entry(shape="q1", plan=UNTUNED, latency_us=1.0).model_dump(mode="json")
    # Journals hold all three so.
    assert (written["plan"], written["unproven"], written["default_plan"]) == ("default",) * 3
    assert written["ties"] == []


@pytest.mark.parametrize("spelled", ["default", None, {}])
def test_the_default_is_the_empty_plan_however_a_file_spells_it(spelled):
    row = dict.fromkeys(("plan", "unproven", "default_plan"), spelled)
    read = Entry.model_validate({"shape": "q1", "latency_us": 1.0, "ties": [spelled], **row})
    assert (read.plan, read.default_plan, read.ties) == (UNTUNED, UNTUNED, (UNTUNED,))
    assert read.unproven is None


@pytest.mark.parametrize(
    "change",
    [
        {"plan": "defualt"},
        {"plan": {"num_splits": 2}},
        {"plan": 3},
        {"shape": "8q1s1024"},
        {"shape": "oops"},
        {"shape": 3},
        {"latency_us": 0},
        {"latency_us": float("nan")},
        {"latency": 1.0},
    ],
)
def test_what_no_tuner_wrote_is_refused(change):
    row = {"shape": "8q1s1k", "plan": "default", "latency_us": 1.0}
    assert Entry.model_validate(row)
    with pytest.raises(ValidationError):
        Entry.model_validate(row | change)


OLD = {"shape": "8q1s1k", "plan": {"num_kv_splits": 2}, "ties": ["default"], "latency_us": 1.0}


def test_a_plan_without_the_defaults_latency_is_read_as_unproven():
    entry = Entry.model_validate(OLD)
    assert (entry.plan, entry.unproven, entry.ties) == (UNTUNED, Plan(num_kv_splits=2), ())
    assert Entry.model_validate(entry.model_dump(mode="json")) == entry
    assert Entry.model_validate(OLD | {"default_us": 2.0}).plan == Plan(num_kv_splits=2)


def test_an_entry_has_a_plan_or_an_unproven_one():
    both = OLD | {"default_us": 2.0, "unproven": {"num_kv_splits": 3}}
    with pytest.raises(ValidationError, match="not both"):
        Entry.model_validate(both)
