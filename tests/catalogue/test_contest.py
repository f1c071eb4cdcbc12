"""Backends beside each other: only what is comparable is compared, and the sums are right."""

import pytest
from made_up_tables import FLASH_ATTN, FLASHMLA, TRITON, case, default, speedup, table, tuned

from mla_tune.catalogue.contest import contests
from mla_tune.catalogue.timing import SURE, SURE_ON_CPU
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes import format_size
from mla_tune.table import Entry
from mla_tune.tuning.run_settings import MIN_SPEEDUP, MIN_SPEEDUP_ON_CPU
from modelled_table import HEADER


def contest(*tables):
    (found,) = contests(tables)
    return found


def names(found, places):
    return [found.contenders[place].name for place in places]


def test_one_backend_for_all_takes_its_time_and_loses_what_others_are_faster_by():
    found = contest(
        table(FLASH_ATTN, default("q1s1k", 10.0, weight=3.0), default("160q1s12k", 120.0)),
        table(FLASHMLA, default("q1s1k", 20.0, weight=3.0), default("160q1s12k", 100.0)),
    )
    flash_attn, flashmla = found.standings
    assert (flash_attn.us, flashmla.us) == (3 * 10 + 120, 3 * 20 + 100)
    best_us = 3 * 10 + 100
    assert flash_attn.loss.value == pytest.approx(150 / best_us)
    assert flashmla.loss.value == pytest.approx(160 / best_us)
    assert found.winner == 0
    assert flash_attn.worst.value == pytest.approx(1.2)
    assert flash_attn.worst_shape == "160q1s12k"
    assert [point.fastest for point in found.points] == [0, 1]


def test_a_backend_counts_with_its_table_in_use():
    found = contest(
        table(TRITON, tuned("q1s1k", 100.0, 20.0)), table(FLASHMLA, default("q1s1k", 50.0))
    )
    assert found.winner == 0
    (standing, _) = found.standings
    assert (standing.default_us, standing.us) == (100.0, 20.0)


def test_an_interval_is_of_both_tables_where_they_have_one():
    found = contest(
        table(TRITON, tuned("q1s1k", 100.0, 20.0, gain=speedup(5.0, 0.03))),
        table(FLASHMLA, tuned("q1s1k", 50.0, 40.0, gain=speedup(1.25, 0.04))),
        table(FLASH_ATTN, default("q1s1k", 60.0)),
    )
    (point,) = found.points
    behind = point.behind(1)
    assert behind.value == 2.0
    assert behind.low == pytest.approx(2.0 / 1.0513, rel=1e-3)
    assert behind.high == pytest.approx(2.0 * 1.0513, rel=1e-3)
    (other,) = contest(
        table(FLASHMLA, default("q1s1k", 40.0)), table(FLASH_ATTN, default("q1s1k", 60.0))
    ).points
    assert (other.behind(1).value, other.behind(1).low) == (1.5, None)


@pytest.mark.parametrize(
    ("us", "off", "is_tie"), [(10.05, 0.001, True), (10.3, 0.001, False), (10.3, 0.04, True)]
)
def test_what_cannot_be_told_apart_is_a_tie(us, off, is_tie):
    found = contest(
        table(FLASH_ATTN, tuned("q1s1k", 20.0, 10.0, gain=speedup(2.0, off))),
        table(TRITON, tuned("q1s1k", 20.0, us, gain=speedup(20.0 / us, off))),
    )
    (point,) = found.points
    assert point.fastest == 0
    assert point.tied == ((1,) if is_tie else ())


def test_on_a_cpu_it_takes_five_percent():
    device = HEADER.device.model_copy(update={"compute_capability": None})
    entries = default("q1s1k", 10.0), default("q1s1k", 10.4)
    one, other = (
        table(backend, entry, device=device)
        for backend, entry in zip((FLASHMLA, TRITON), entries, strict=True)
    )
    assert contest(one, other).points[0].tied == (1,)


DIFFERING = {
    "GPU": {"device": HEADER.device.model_copy(update={"name": "NVIDIA H100 PCIe"})},
    "clock": {"device": HEADER.device.model_copy(update={"locked_sm_clock_mhz": 1200})},
    "heads": {"model": HEADER.model | {"num_q_heads": 128}},
    "dimensions": {"model": HEADER.model | {"v_head_dim": 256}},
    "KV dtype": {"kv_cache_dtype": "fp8"},
    "mode": {"mode": "graph"},
    "quantization": {"quantization": "fp8_per_block"},
    "sparse": {"engine": HEADER.engine.model_copy(update={"index_topk": 2048})},
}


@pytest.mark.parametrize("what", DIFFERING)
def test_tables_of_different_things_do_not_meet(what):
    one, other = table(FLASHMLA, default("q1s1k", 1.0)), default("q1s1k", 2.0)
    found = contests([one, table(TRITON, other, **DIFFERING[what])])
    assert [len(each.contenders) for each in found] == [1, 1]
    assert all(each.points == () and each.winner is None for each in found)


def test_weights_of_kv_b_proj_say_nothing_of_a_graph():
    one = table(FLASHMLA, default("q1s1k", 1.0), mode="graph")
    other = table(TRITON, default("q1s1k", 2.0), mode="graph", quantization="fp8_per_block")
    assert len(contest(one, other).points) == 1


KEY = "8q1s{1k,4k}"
CASES = case(1024, 20.0, 10.0), case(4096, 40.0, 20.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"weight": 2.0},
        {"holds_ragged": True},
        {"cases": (case(1024, 20.0, 10.0, 2.0), case(4096, 40.0, 20.0, 0.5))},
    ],
)
def test_means_over_different_cases_are_not_compared(changes):
    entries = (
        tuned(KEY, 30.0, 15.0, cases=CASES),
        tuned(KEY, 30.0, 15.0, **{"cases": CASES} | changes),
    )
    one, other = (
        table(backend, entry, mode="graph")
        for backend, entry in zip((FLASHMLA, TRITON), entries, strict=True)
    )
    found = contest(one, other)
    assert (found.points, found.differing) == ((), (KEY,))


def test_cases_of_any_two_have_to_be_the_same():
    other = tuple(case(each.kv_len, 20.0, 10.0, each.weight * 2) for each in CASES)
    found = contest(
        table(FLASH_ATTN, default(KEY, 30.0), mode="graph"),
        table(FLASHMLA, tuned(KEY, 30.0, 15.0, cases=CASES), mode="graph"),
        table(TRITON, tuned(KEY, 30.0, 15.0, cases=other), mode="graph"),
    )
    assert found.differing == (KEY,)


def test_guards_do_not_count_and_lengths_that_both_name_stand_beside_each_other():
    guards = case(65536, 90.0, 60.0, 0.0), case(65536, 90.0, 80.0, 0.0)
    found = contest(
        table(FLASHMLA, tuned(KEY, 30.0, 15.0, cases=(*CASES, guards[0])), mode="graph"),
        table(TRITON, tuned(KEY, 30.0, 14.0, cases=(*CASES, guards[1])), mode="graph"),
        table(FLASH_ATTN, default("q1s1k", 5.0), mode="graph"),
    )
    (point,) = found.points
    assert [each.shape for each in point.lengths] == ["8q1s1k", "8q1s4k", "8q1s64k"]
    assert [each.weight for each in point.lengths] == [1.0, 1.0, 0.0]
    assert (point.fastest, point.lengths[2].fastest) == (1, 0)
    assert found.standings == []  # FLASH_ATTN_MLA has not this shape


def test_a_default_that_could_not_be_measured_is_no_time():
    unproven = Entry(shape="q1s1k", plan=UNTUNED, unproven=Plan(num_kv_splits=2), latency_us=1.0)
    found = contest(
        table(TRITON, unproven, default("2q1s1k", 9.0)),
        table(FLASHMLA, default("q1s1k", 5.0), default("2q1s1k", 5.0)),
    )
    assert found.points[0].served == {1: 5.0}
    assert [point.shape for point in found.complete] == ["2q1s1k"]
    assert found.winner == 1


def test_two_tables_of_a_backend_are_told_apart():
    entries = default("q1s1k", 5.0)
    newer = {"software": {"vllm": "0.34.0"}}
    both = contest(table(FLASHMLA, entries), table(FLASHMLA, entries, **newer))
    assert names(both, range(2)) == ["FLASHMLA 0.33.0", "FLASHMLA 0.34.0"]
    longer = {"engine": HEADER.engine.model_copy(update={"max_model_len": 16384})}
    lengths = contest(table(FLASHMLA, entries), table(FLASHMLA, entries, **longer))
    own = format_size(HEADER.engine.max_model_len)
    assert names(lengths, range(2)) == [f"FLASHMLA up to {own}", "FLASHMLA up to 16k"]
    same = contest(table(FLASHMLA, entries, path="a.yaml"), table(FLASHMLA, entries, path="b.yaml"))
    assert names(same, range(2)) == ["a.yaml", "b.yaml"]


def test_a_backend_of_two_releases_beside_others_is_compared_in_each():
    entries, others = default("q1s1k", 5.0), default("2q1s1k", 5.0)
    newer = {"software": {"vllm": "0.34.0"}}
    tables = (table(FLASHMLA, entries), table(FLASHMLA, others, **newer), table(TRITON, entries))
    older, new = contests(tables)
    assert names(older, range(2)) == [FLASHMLA, TRITON]
    assert [point.shape for point in older.complete] == ["q1s1k"]
    assert str(older.ground).endswith(", vLLM 0.33.0")
    assert names(new, range(1)) == [FLASHMLA]
    assert str(new.ground).endswith(", vLLM 0.34.0")


def test_a_tie_is_what_a_verdict_would_not_publish():
    assert (SURE, SURE_ON_CPU) == (MIN_SPEEDUP, MIN_SPEEDUP_ON_CPU)
