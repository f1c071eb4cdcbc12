from dataclasses import replace

import pytest
from pydantic import ValidationError

from fake_device import ENVIRONMENT
from mla_tune.plan.plan import Plan
from mla_tune.shapes import MlaDimensions
from mla_tune.table import Entry, Header

HEADER = Header.of(ENVIRONMENT, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 4096)


def test_a_header_names_all_that_its_entries_are_true_for():
    assert HEADER.model_dump(exclude_none=True) == {
        "schema_version": 2,
        "backend": "TORCH_MLA",
        "device": {"name": "Fake Device", "sm_count": 2},
        "model": {
            "num_q_heads": 2,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
        },
        "kv_cache_dtype": "auto",
        "quantization": "none",
        "engine": {"mode": "eager", "max_model_len": 4096},
        "software": {"torch": "2.13.0"},
    }


def test_headers_differ_in_the_first_field_that_does():
    newer = replace(ENVIRONMENT, software={"torch": "9"})
    other = Header.of(newer, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 4096)
    assert HEADER.first_difference(other) == ("software", {"torch": "2.13.0"}, {"torch": "9"})
    assert HEADER.first_difference(HEADER) is None


def header_of(**facts):
    environment = replace(ENVIRONMENT, **facts)
    return Header.of(environment, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 4096)


def test_a_locked_clock_is_what_entries_are_true_for():
    locked = header_of(locked_sm_clock_mhz=1005)
    assert locked.device.locked_sm_clock_mhz == 1005
    assert HEADER.first_difference(locked)[0] == "device"
    assert locked.first_difference(header_of(locked_sm_clock_mhz=1005)) is None


def test_what_the_driver_does_not_say_is_told_and_keeps_no_tables_apart():
    silent = header_of(unwatched="clocks (NVML: Not Found)")
    assert silent.model_dump()["device"]["unwatched"] == "clocks (NVML: Not Found)"
    assert HEADER.first_difference(silent) is None


def test_an_entry_reads_back_from_what_a_journal_stores():
    entry = Entry(
        shape="8q1s1k",
        plan=Plan(num_kv_splits=2),
        default_plan=Plan(num_kv_splits=4),
        ties=(None, Plan(prefill_backend="a")),
        latency_us=1.5,
        default_us=2.5,
    )
    assert Entry.model_validate(entry.model_dump(mode="json")) == entry


def test_the_default_is_written_as_a_word():
    assert Entry(shape="q1", plan=None, latency_us=1.0).model_dump()["plan"] == "default"


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
    assert (entry.plan, entry.unproven, entry.ties) == (None, Plan(num_kv_splits=2), ())
    assert Entry.model_validate(entry.model_dump(mode="json")) == entry
    assert Entry.model_validate(OLD | {"default_us": 2.0}).plan == Plan(num_kv_splits=2)


def test_an_entry_has_a_plan_or_an_unproven_one():
    both = OLD | {"default_us": 2.0, "unproven": {"num_kv_splits": 3}}
    with pytest.raises(ValidationError, match="not both"):
        Entry.model_validate(both)
