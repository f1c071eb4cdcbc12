import logging

import pytest

from mla_tune.plan.plan import Plan
from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.coverage import MOST_NAMED, REMEDY, coverage
from mla_tune.vllm.plugin.lookups import ENDS_EARLY, UNIFORM_ALONE

HIT = Choice("any", "hit", Plan(num_kv_splits=4))
NO_ENTRY = Choice("any", "miss", reason="no entry")
REFUSED = Choice("any", "miss", reason="not proven here")


def test_a_table_for_every_graph_is_no_warning() -> None:
    planned = {(1, 1): HIT, (8, 4): HIT}
    assert coverage(planned, planned) == (logging.INFO, "2 of 2 decode graphs have an entry")


def test_sizes_without_an_entry_are_named_with_the_remedy() -> None:
    planned = {(1, 1): NO_ENTRY, (8, 1): HIT, (8, 4): NO_ENTRY}
    level, told = coverage(planned, {(8, 1)})
    assert level == logging.WARNING
    assert told.startswith("1 of 3 decode graphs have an entry; q1, 8q4 have none")
    assert told.endswith(REMEDY)


@pytest.mark.parametrize("more", [0, 1, 100])
def test_many_sizes_are_named_by_the_first_and_the_last(more: int) -> None:
    count = MOST_NAMED + more
    planned = {(size, 1): NO_ENTRY for size in range(2, count + 2)} | {(1000, 1): HIT}
    _, told = coverage(planned, {(1000, 1)})
    assert f"{count + 1}q1" in told
    assert told.count("q1") == MOST_NAMED
    assert (f"({count} in all)" in told) == bool(more)


def test_entries_that_are_not_true_here_are_told_apart() -> None:
    level, told = coverage({(1, 1): HIT, (2, 1): REFUSED}, {(1, 1), (2, 1)})
    assert level == logging.WARNING
    assert told == (
        "2 of 2 decode graphs have an entry; 1 of these are left as vLLM has them (not proven here)"
    )


def test_without_a_graph_table_nothing_is_to_be_mended() -> None:
    level, told = coverage({(1, 1): NO_ENTRY}, set())
    assert (level, told.split(":")[0]) == (logging.INFO, "0 of 1 decode graphs have an entry")


def test_entries_that_end_before_the_engine_are_told_with_what_to_tune_for() -> None:
    short = Choice("any", "miss", reason=ENDS_EARLY)
    planned = {(1, 1): HIT, (2, 1): short, (4, 1): short, (8, 1): REFUSED}
    level, told = coverage(planned, planned, 1_125_000)
    assert level == logging.WARNING
    assert told == (
        "4 of 4 decode graphs have an entry; 2 of these were measured to shorter KV lengths than "
        "this engine serves: tune them for the engine's max_model_len with graph: "
        "{capture_sizes: vllm, kv_cache_tokens: 1125000}; 1 of these are left as vLLM has them "
        "(not proven here)"
    )
    assert "kv_cache_tokens" not in coverage(planned, planned)[1]


def test_entries_of_uniform_batches_alone_are_told_with_the_way_to_use_them() -> None:
    alone = Choice("any", "miss", reason=UNIFORM_ALONE)
    level, told = coverage({(1, 1): HIT, (2, 1): alone}, {(1, 1), (2, 1)})
    assert level == logging.WARNING
    assert told.startswith(
        "2 of 2 decode graphs have an entry; 1 of these were measured on uniform batches alone"
    )
    assert "MLA_TUNE_UNGUARDED=1" in told
