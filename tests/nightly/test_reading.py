import json

import pytest
from pydantic import ValidationError

from mla_tune.nightly.reading import Reading
from mla_tune.plan.plan import UNTUNED
from readings import reading


def test_a_reading_is_read_as_it_was_written():
    for each in (reading(0), reading(1, plan=UNTUNED, speedup=None, seconds=1.5)):
        assert Reading.model_validate(json.loads(each.model_dump_json(exclude_none=True))) == each


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": 2},
        {"at": "2026-11-01T02:00:00"},
        {"latency_us": -1.0},
        {"shape": "8q"},
        {"kind": "other"},
        {"card": "\x1b[31m"},
        {"software": {"vllm": "a" * 1000}},
    ],
)
def test_what_is_no_reading_is_refused(wrong):
    line = json.loads(reading(0).model_dump_json()) | wrong
    with pytest.raises(ValidationError):
        Reading.model_validate(line)


def test_a_field_of_a_later_version_is_no_harm():
    line = json.loads(reading(0).model_dump_json()) | {"humidity": 0.4}
    assert Reading.model_validate(line) == reading(0)
