import dataclasses

import pytest

from mla_tune.plan.cut import ScheduledSplits
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.table.longer import (
    DECODE_TERMS,
    PREFILL_TERMS,
    Extend,
    LongerModel,
    Paths,
    decode_terms,
    prefill_terms,
)
from mla_tune.table.waves import Error

CUTTER = ScheduledSplits(132, 16)


def counted(extend, value=1):
    return dict(zip(DECODE_TERMS, decode_terms(CUTTER, extend, value), strict=True))


def test_four_query_tokens_of_sixteen_heads_are_one_block():
    assert counted(Extend(8, 4, 1024))["block"] == 8
    assert counted(Extend(8, 5, 1024))["block"] == 16
    assert counted(Extend(8, 64, 1024))["wave"] == 1
    assert counted(Extend(9, 64, 1024))["wave"] == 2


def test_all_blocks_of_a_request_load_the_same_cache():
    one, four = counted(Extend(8, 4, 1024)), counted(Extend(8, 16, 1024))
    assert one["cache_token"] == four["cache_token"] == 8 * 1024
    assert four["row_token"] == 4 * one["row_token"]


def test_a_prefill_without_context_loads_none():
    counts = dict(zip(PREFILL_TERMS, prefill_terms(Extend(2, 300, 300)), strict=True))
    assert counts["context_token"] == counts["query_context"] == counts["context"] == 0
    counts = dict(zip(PREFILL_TERMS, prefill_terms(Extend(2, 300, 1300)), strict=True))
    assert counts["query_context"] == 2 * 384 * 1000


def model(error=0.05, prefill=1.0, smallest=(1, 2, 1024)):
    paths = Paths(
        CUTTER,
        {"launch": 20.0, "block": 0.05, "wave_token": 0.02, "partial_result": 0.02},
        {"launch": prefill},
    )
    largest = [Extend(9, 512, 8192), Extend(32, 64, 8192)]
    return LongerModel(paths, Error(error), 1.01, 512, 32, (1, 32), 512, Extend(*smallest), largest)


def test_the_faster_path_or_cap_is_answered_where_it_is_proven():
    assert model().answer(4, 16, [2048]).plan == Plan(reorder_batch_threshold=1)
    answer = model(prefill=1e6).answer(6, 64, [1024, 1100])
    assert answer.plan == Plan(reorder_batch_threshold=512, num_kv_splits=1)
    assert answer.gain > 1.05
    unproven = model(error=2.0, prefill=1e6).answer(6, 64, [1024])
    assert (unproven.outcome, unproven.plan) == ("miss", UNTUNED)


def test_a_cap_is_answered_for_no_batch_that_it_does_not_act_on():
    answer = dataclasses.replace(model(prefill=1e6), most_tokens=300).answer(6, 64, [1024])
    assert (answer.outcome, answer.plan) == ("default", UNTUNED)


@pytest.mark.parametrize(
    "asked",
    [
        (1, 1000, 8192),  # beyond the threshold the decode path is not known to be right
        (16, 100, 4096),  # no measured one is as large in all three
        (1, 2, 1000),
        (1, 16, 20_000),
        (4, 2000, 2000),
    ],
)
def test_outside_of_what_was_measured_nothing_is_answered(asked):
    batch, query_len, kv_len = asked
    assert model().answer(batch, query_len, [kv_len]).outcome == "miss"


def test_queries_without_context_are_not_answered():
    assert model(smallest=(1, 2, 2)).answer(1, 512, [513]).outcome == "plan"
    assert model(smallest=(1, 2, 2)).answer(1, 512, [512]).outcome == "miss"
