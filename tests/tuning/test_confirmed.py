import pytest

from fake_device import DEFAULT, splits
from mla_tune.plan.plan import UNTUNED
from mla_tune.table import CaseResult, Entry, Speedup
from mla_tune.tuning.confirmed import confirmed_entry, failed_entry, is_open, refusal
from mla_tune.tuning.look import Comparison, Look
from mla_tune.tuning.process_spread import MEASURED_SPREAD


def seen(median: float, width: float = 0.002) -> Comparison:
    speedup = Speedup(median=median, low=median - width, high=median + width)
    return Comparison(100.0 / median, 100.0, speedup)


def nominee(*cases: Comparison, **more) -> Entry:
    results = tuple(
        CaseResult(kv_len=1024 << number, weight=1.0, **case._asdict())
        for number, case in enumerate(cases)
    )
    known = seen(1.1)._asdict() | {"default_plan": DEFAULT, "ties": (splits(2),), "note": "a"}
    shape = "8q1s{1k,2k}" if cases else "8q1s1k"
    return Entry(shape=shape, plan=splits(1), cases=results, **(known | more))


def decided(*medians: float, gate: float = 1.01) -> Entry:
    return confirmed_entry(nominee(), [Look(seen(m)) for m in medians], MEASURED_SPREAD, gate)


def test_a_plan_that_all_processes_see_faster_is_published_with_the_mean_of_them():
    entry = decided(1.10, 1.11, 1.09)
    assert (entry.plan, entry.processes, entry.ties) == (splits(1), 3, (splits(2),))
    assert entry.speedup.median == pytest.approx(1.1, rel=1e-3)
    assert entry.default_us / entry.latency_us == pytest.approx(1.1, rel=1e-3)


def test_a_plan_that_the_others_do_not_see_faster_is_not():
    entry = decided(1.10, 1.00, 1.00)
    assert (entry.plan, entry.speedup, entry.unproven) == (UNTUNED, None, None)
    assert entry.latency_us == entry.default_us
    assert entry.ties == (splits(1),)
    assert entry.note.startswith("num_kv_splits=1 over 3 processes: 1.03× (")
    assert entry.note.endswith("), not above 1.01. a")


def test_one_process_alone_has_to_be_clear_of_what_processes_differ_by():
    assert decided(1.015).plan == UNTUNED
    assert "num_kv_splits=1 in one process" in decided(1.015).note
    found = decided(1.03)
    assert (found.plan, found.processes) == (splits(1), 1)


def test_a_plan_far_behind_is_no_tie():
    assert decided(0.8, 0.8, 0.8).ties == ()


def test_the_gate_is_about_the_lower_end_not_the_median():
    assert decided(1.1, 1.1, 1.1, gate=1.095).plan == UNTUNED
    assert decided(1.1, 1.1, 1.1, gate=1.09).plan == splits(1)


def test_what_is_published_stays_until_it_is_clearly_below_the_gate_or_not_proven_faster():
    def stays(*medians: float) -> bool:
        looks = [Look(seen(m)) for m in medians]
        entry = confirmed_entry(nominee(), looks, MEASURED_SPREAD, 1.01, is_published=True)
        return bool(entry.plan)

    assert stays(1.012, 1.01, 1.009)
    assert not decided(1.012, 1.01, 1.009).plan
    assert not stays(1.004, 1.003, 1.004)
    assert not stays(1.008)  # one process: the interval begins below 1
    assert not stays(0.97, 1.0, 1.03)


def test_a_kv_length_that_is_slower_over_all_processes_keeps_the_default():
    def over(*second_case: float) -> Entry:
        looks = [Look(seen(1.1), (seen(1.2), seen(median))) for median in second_case]
        return confirmed_entry(nominee(seen(1.2), seen(1.0)), looks, MEASURED_SPREAD, 1.01)

    fine = over(1.0, 0.997, 1.002)
    assert fine.plan == splits(1)
    assert [case.kv_len for case in fine.cases] == [1024, 2048]
    slow = over(1.0, 0.97, 0.96)
    assert (slow.plan, slow.cases) == (UNTUNED, ())
    assert "slower at one KV length" in slow.note


@pytest.mark.parametrize(
    ("together", "of_a_case", "is_refused"),
    [(1.1, 0.96, True), (1.1, 1.0, False), (1.005, 0.96, False)],
)
def test_what_gains_and_is_slower_at_one_length_is_refused(together, of_a_case, is_refused):
    looks = [Look(seen(together), (seen(1.2), seen(of_a_case)))] * 3
    told = refusal(splits(1), looks, MEASURED_SPREAD, 1.01)
    assert bool(told) == is_refused
    entry = confirmed_entry(nominee(seen(1.2), seen(1.0)), looks, MEASURED_SPREAD, 1.01)
    assert told in entry.note


def test_a_guard_that_later_processes_left_out_is_what_the_first_one_saw():
    looks = [Look(seen(1.1), (seen(1.1), seen(1.3))), *[Look(seen(1.1), (seen(1.1), None))] * 2]
    entry = confirmed_entry(nominee(seen(1.1), seen(1.3)), looks, MEASURED_SPREAD, 1.01)
    served, guard = (case.speedup for case in entry.cases)
    assert guard.median == pytest.approx(1.3)
    assert guard.half_width / guard.median > 1.5 * served.half_width / served.median


def test_processes_that_contradict_each_other_prove_nothing():
    entry = decided(2.0, 1.0, 4.0)
    assert entry.plan == UNTUNED
    assert "too noisy to tell" in entry.note


def test_the_gate_within_the_interval_asks_for_another_process():
    def asks(*medians: float) -> bool:
        return is_open([Look(seen(m)) for m in medians], MEASURED_SPREAD, 1.01)

    assert asks(1.012, 1.013, 1.014)
    assert not asks(1.05, 1.05, 1.05)
    assert not asks(0.99, 0.99, 0.99)


def test_a_plan_that_fails_elsewhere_keeps_the_default():
    entry = failed_entry(nominee(), splits(1), "died: SIGSEGV")
    assert (entry.plan, entry.unproven, entry.ties) == (UNTUNED, None, ())
    assert entry.latency_us == entry.default_us == 100.0
    assert entry.note == "num_kv_splits=1 failed in another process (died: SIGSEGV). a"


def test_where_the_default_fails_elsewhere_nothing_is_proven():
    entry = failed_entry(nominee(), DEFAULT, "died: SIGSEGV")
    assert (entry.plan, entry.unproven, entry.default_us) == (UNTUNED, splits(1), None)
    assert entry.latency_us == pytest.approx(100 / 1.1)
