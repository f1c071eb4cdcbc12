"""What changed between two tables."""

from dataclasses import replace

import pytest

from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes.served_reach import ServedReach
from mla_tune.table import Speedup, TableFile
from mla_tune.table.difference import Kind, TableDifference
from modelled_table import HEADER, entry

FOUR, EIGHT = Plan(num_kv_splits=4), Plan(num_kv_splits=8)


def table(*entries) -> TableFile:
    return TableFile(HEADER, entries, document=None)  # type: ignore[arg-type]


def one(old, new):
    (change,) = TableDifference.of(table(*old), table(*new)).entries
    return change


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (FOUR, FOUR, Kind.SAME),
        (UNTUNED, FOUR, Kind.WON),
        (FOUR, UNTUNED, Kind.LOST),
        (FOUR, EIGHT, Kind.CHANGED),
    ],
)
def test_a_decision_has_a_kind(old, new, kind):
    assert one([entry("q1s1k", old)], [entry("q1s1k", new)]).kind is kind


def test_what_either_table_calls_a_tie_is_one():
    four, eight = entry("q1s1k", FOUR), entry("q1s1k", EIGHT)
    tied = eight.model_copy(update={"ties": (FOUR,)})
    assert one([four], [tied]).kind is Kind.TIE
    assert one([tied], [four]).kind is Kind.TIE
    assert TableDifference.of(table(four), table(tied)).decisions == ()


def test_entries_come_and_go():
    difference = TableDifference.of(table(entry("q1s1k", FOUR)), table(entry("q1s2k", FOUR)))
    assert [(c.shape, c.kind) for c in difference.entries] == [
        ("q1s2k", Kind.ADDED),
        ("q1s1k", Kind.REMOVED),
    ]
    assert difference.counts() == {Kind.ADDED: 1, Kind.REMOVED: 1}
    assert difference.mean_speedups() is None


def test_the_same_plan_has_moved_where_its_intervals_are_apart():
    before = entry("q1s1k", FOUR).model_copy(
        update={"speedup": Speedup(median=1.5, low=1.4, high=1.6)}
    )
    slower = before.model_copy(update={"speedup": Speedup(median=1.3, low=1.25, high=1.35)})
    near = before.model_copy(update={"speedup": Speedup(median=1.45, low=1.39, high=1.5)})
    assert one([before], [slower]).has_moved
    assert not one([before], [near]).has_moved


def test_an_entry_that_a_record_guards_now_is_guarded_less():
    before = entry("q1s1k", FOUR)
    by_record = before.model_copy(update={"served": ServedReach(to=4095, beyond=0.001)})
    assert one([before], [by_record]).is_guarded_less
    assert not one([by_record], [before]).is_guarded_less
    assert not one([by_record], [by_record]).is_guarded_less


def test_the_mean_counts_a_default_as_no_gain():
    double = entry("q1s1k", FOUR).model_copy(
        update={"speedup": Speedup(median=2.0, low=1.9, high=2.1)}
    )
    difference = TableDifference.of(
        table(double, entry("q1s2k", UNTUNED)),
        table(double, double.model_copy(update={"shape": "q1s2k"})),
    )
    assert difference.mean_speedups() == pytest.approx((2**0.5, 2.0))


def test_another_header_is_named():
    newer = HEADER.model_copy(update={"software": HEADER.software | {"vllm": "9.9.9"}})
    difference = TableDifference.of(table(), replace(table(), header=newer))
    assert difference.header is not None
    assert difference.header[0] == "software"
