from dataclasses import replace
from itertools import groupby

import pytest
from pool_cases import (
    LATENCIES,
    OTHER_KIND,
    SPECS,
    FakeGpu,
    gpu,
    jobs,
    plans,
    run,
    screened,
    shapes_of,
)

from fake_device import DEFAULT, guarded, splits
from mla_tune.errors import DeviceLost, EnvironmentFailure, WorkloadFailure
from mla_tune.plan.plan import UNTUNED
from mla_tune.table import TableFile
from mla_tune.tuning import nominee
from mla_tune.tuning.pool import member_run
from mla_tune.tuning.study import Journal

ALL = {(f"Fake-heads={heads}", spec): (splits(8), 3) for heads in (2, 4) for spec in SPECS}


@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_devices_ends_in_the_same_winners(tmp_path, count):
    gpus = [gpu(number) for number in range(count)]
    result, reporter = run(tmp_path, *gpus)
    assert plans(tmp_path) == ALL
    assert not result.failures
    assert [len(tuned.entries) for tuned in result.tables] == [len(SPECS)] * 2
    assert [entry.shape for entry in result.tables[0].entries] == list(SPECS)
    assert sorted(reporter.decisions) == sorted([(spec, splits(8)) for spec in SPECS] * 2)


def test_each_shape_is_tuned_whole_on_one_device(tmp_path):
    gpus = [gpu(number) for number in range(4)]
    run(tmp_path, *gpus)
    owned = [shapes_of(bench) for bench in gpus]
    assert all(owned)
    assert sum(map(len, owned)) == len(set().union(*owned)) == 2 * len(SPECS)
    for bench in gpus:
        assert shapes_of(bench, 0) == shapes_of(bench, 1) == shapes_of(bench, 2)
        assert bench.process == 2, "its winners share a process, whatever their table"


def test_devices_of_two_kinds_make_a_table_each(tmp_path):
    gpus = [gpu(0), gpu(1, OTHER_KIND), gpu(2), gpu(3, OTHER_KIND)]
    _, reporter = run(tmp_path, *gpus)
    assert len(plans(tmp_path)) == 4 * len(SPECS)
    for name, own in (("Fake", gpus[::2]), ("Other", gpus[1::2])):
        table = TableFile.load(tmp_path / f"{name}-heads=2.yaml")
        assert table.header.device.name == f"{name} Device"
        assert len(table.entries) == len(SPECS)
        assert set().union(*map(shapes_of, own)) == {(h, s) for h in (2, 4) for s in SPECS}
    assert not reporter.errors


def test_what_is_decided_is_not_measured_again(tmp_path):
    run(tmp_path, gpu(0), gpu(1))
    before = plans(tmp_path)
    again = gpu(0), gpu(1)
    _, reporter = run(tmp_path, *again)
    assert [bench.tuned for bench in again] == [[], []]
    assert plans(tmp_path) == before
    assert len(reporter.decisions) == 2 * len(SPECS)


def lost(bench: FakeGpu, after: int) -> FakeGpu:
    bench.lost_after = after
    return bench


@pytest.mark.parametrize("after", [0, 1, 4, 25, 50, 70])
def test_the_work_of_a_device_that_is_lost_goes_to_another(tmp_path, after):
    gpus = lost(gpu(0), after), gpu(1)
    result, reporter = run(tmp_path, *gpus)
    assert plans(tmp_path) == ALL
    assert not result.failures
    trials = [trial for bench in gpus for trial in screened(bench)]
    assert len(set(trials)) == 2 * len(SPECS) * (len(LATENCIES) - 1)
    assert len(trials) - len(set(trials)) <= 1, "but for the one that was under way"
    assert any("cuda:0 is lost" in told for told in reporter.notices) == (gpus[0].asked > after)


def test_no_verdict_holds_what_two_cards_showed(tmp_path):
    slow = {plan: 3 * latency_us for plan, latency_us in LATENCIES.items()}
    run(tmp_path, lost(gpu(0, latencies=slow), 60), gpu(1))
    for path in tmp_path.glob("*.yaml"):
        for entry in TableFile.load(path).entries:
            assert entry.latency_us == pytest.approx(70, rel=0.05)
            assert entry.default_us == pytest.approx(100, rel=0.05)


def test_a_run_without_a_device_left_says_what_is_not_tuned_and_goes_on_next_time(tmp_path):
    result, _ = run(tmp_path, lost(gpu(0), 30), lost(gpu(1), 40))
    left = sum(len(failure.shapes) for failure in result.failures)
    assert left > 0
    assert all(isinstance(failure.error, DeviceLost) for failure in result.failures)
    run(tmp_path, gpu(0), gpu(1))
    assert plans(tmp_path) == ALL


def test_a_nominee_of_an_earlier_run_is_confirmed_anew_on_another_card(tmp_path):
    run(tmp_path, lost(gpu(0), 90))
    one, other = gpu(5), gpu(6)
    run(tmp_path, one, other)
    assert plans(tmp_path) == ALL
    for bench in (one, other):
        assert shapes_of(bench, 1) <= shapes_of(bench, 0), "nothing was raced in part here"


class CannotOpen(FakeGpu):
    def open(self, setup):
        if setup.model.num_q_heads == 4:
            raise WorkloadFailure("the worker ended twice when asked to open")
        super().open(setup)


def test_a_table_that_one_device_cannot_open_is_tuned_on_another(tmp_path):
    sick = CannotOpen(LATENCIES, noise=0.01, device="cuda:0")
    well = gpu(1)
    result, _ = run(tmp_path, sick, well)
    assert plans(tmp_path) == ALL
    assert not result.failures
    assert {heads for heads, _ in shapes_of(sick)} == {2}


def test_a_table_that_no_device_can_open_is_given_up_and_the_other_goes_on(tmp_path):
    sick = [CannotOpen(LATENCIES, noise=0.01, device=f"cuda:{n}") for n in range(2)]
    result, _ = run(tmp_path, *sick)
    assert plans(tmp_path) == {key: value for key, value in ALL.items() if "=2" in key[0]}
    (failure,) = result.failures
    assert len(failure.shapes) == len(SPECS)
    assert "asked to open" in failure.error.what


def test_a_card_that_is_slow_is_named_in_the_summary_and_in_its_entries(tmp_path):
    hot = {plan: 1.08 * latency_us for plan, latency_us in LATENCIES.items()}
    result, reporter = run(tmp_path, gpu(0), gpu(1, latencies=hot), gpu(2))
    (remark,) = result.remarks
    assert remark.startswith("cuda:1 (card1) takes 1.0")
    assert remark in reporter.notices
    notes = [entry.note for t in result.tables for entry in t.entries]
    noted = [note for note in notes if "card card1 takes 1.0" in note]
    assert 0 < len(noted) < len(notes)


def test_cards_that_are_alike_are_not_remarked_on(tmp_path):
    result, _ = run(tmp_path, gpu(0), gpu(1), gpu(2))
    assert result.remarks == ()
    assert {entry.note for t in result.tables for entry in t.entries} == {""}


def test_a_full_disk_stops_all_devices(tmp_path, monkeypatch):
    def full(_ledger, _outcome):
        raise EnvironmentFailure("study cannot be written: no space left")

    monkeypatch.setattr("mla_tune.tuning.study.Ledger.tell", full)
    gpus = gpu(0), gpu(1)
    with pytest.raises(EnvironmentFailure, match="no space"):
        run(tmp_path, *gpus)
    assert all(bench.is_stopped for bench in gpus)


def test_an_interrupt_stops_all_devices_and_keeps_what_is_done(tmp_path):
    def interrupt(what):
        if what.startswith("race 8q1s4k"):
            raise KeyboardInterrupt

    gpus = gpu(0, before=interrupt), gpu(1)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, *gpus)
    assert all(bench.is_stopped for bench in gpus)
    again = gpu(2), gpu(3)
    run(tmp_path, *again)
    assert plans(tmp_path) == ALL
    done = {trial for bench in gpus for trial in screened(bench) if trial[1] != "8q1s4k"}
    assert not done & {trial for bench in again for trial in screened(bench)}


def test_a_journal_that_another_run_has_costs_its_table_only(tmp_path):
    digest = gpu(0).environment.software_digest
    held = Journal(tmp_path / "study" / f"Fake-heads=4.{digest}.journal")
    result, _ = run(tmp_path, gpu(0), gpu(1))
    held.close()
    assert plans(tmp_path) == {key: value for key, value in ALL.items() if "=2" in key[0]}
    (failure,) = result.failures
    assert "in use by another run" in failure.error.what


def test_one_process_decides_where_one_is_asked_for(tmp_path):
    gpus = gpu(0), gpu(1)
    run(tmp_path, *gpus, processes=1)
    assert plans(tmp_path) == {key: (splits(8), 1) for key in ALL}
    assert [bench.process for bench in gpus] == [0, 0]


def test_a_run_for_fewer_shapes_than_devices_uses_what_it_needs(tmp_path):
    gpus = [gpu(number) for number in range(4)]
    run(tmp_path, *gpus, own=jobs(tmp_path, heads=(2,), specs=("q1s1k",)))
    assert list(plans(tmp_path).values()) == [(splits(8), 3)]
    assert sum(bool(shapes_of(bench)) for bench in gpus) == 1


def test_a_search_for_launches_that_one_device_cannot_do_is_anothers(tmp_path, monkeypatch):
    real = member_run.launches_for

    def fails_on_the_first(job, tuner, reporter):
        if tuner.bench.device == "cuda:0":
            raise WorkloadFailure("the worker ended twice when asked to plan_space")
        return real(job, tuner, reporter)

    monkeypatch.setattr(member_run, "launches_for", fails_on_the_first)
    gpus = gpu(0), gpu(1)
    result, _ = run(tmp_path, *gpus)
    assert not result.failures
    assert plans(tmp_path) == ALL
    # Once it is found, all devices have it.
    assert shapes_of(gpus[1])


class OneProcess(FakeGpu):
    def renew(self):
        return False


def test_devices_without_another_process_decide_by_what_the_first_saw(tmp_path):
    run(tmp_path, OneProcess(LATENCIES, noise=0.01), OneProcess(LATENCIES, noise=0.01))
    assert plans(tmp_path) == {key: (splits(8), 1) for key in ALL}


GUARDED = {
    plan: {1024: us, 2048: 99.0 if plan == DEFAULT else 96.0}
    for plan, us in {DEFAULT: 100.0, splits(2): 50.0, splits(8): 60.0}.items()
}
REFUSED = {"latencies": GUARDED, "slower_from": {splits(2): 1}}


def guarded_job(folder):
    workloads = tuple(guarded(f"{count}q1s1k") for count in (1, 2, 4, 8))
    (job,) = jobs(folder, heads=(2,))
    return [replace(job, workloads=workloads)]


@pytest.mark.parametrize("after", [None, 30, 45])
def test_where_other_processes_refuse_the_winners_their_runners_up_are_published(tmp_path, after):
    gpus = lost(gpu(0, **REFUSED), after), gpu(1, **REFUSED)
    result, reporter = run(tmp_path, *gpus, own=guarded_job(tmp_path))
    assert set(plans(tmp_path).values()) == {(splits(8), 3)}
    assert (len(plans(tmp_path)), result.failures) == (4, ())
    assert [plan for _, plan in reporter.decisions] == [splits(8)] * 4
    told = [what for what in reporter.notices if what.endswith("tuned again without it")]
    assert 0 < len(told) <= 4, "but for those that the one left begins in a later process"
    assert not [what for what in reporter.notices if "other runs" in what]


@pytest.mark.parametrize("count", [1, 2])
def test_without_other_processes_a_refused_plan_leaves_its_turn_at_once(
    tmp_path, monkeypatch, count
):
    def refusal(plan, *_, **__):
        return "slower at one KV length" if plan == splits(2) else ""

    monkeypatch.setattr(nominee, "refusal", refusal)
    gpus = [gpu(number, latencies=GUARDED) for number in range(count)]
    result, reporter = run(tmp_path, *gpus, own=guarded_job(tmp_path), processes=1)
    assert set(plans(tmp_path).values()) == {(splits(8), 1)}
    assert (len(plans(tmp_path)), result.failures) == (4, ())
    assert [plan for _, plan in reporter.decisions] == [splits(8)] * 4
    assert len(reporter.notices) == 4
    if count == 1:
        turns = [key for key, _ in groupby(key for *_, key, _ in gpus[0].tuned)]
        assert len(turns) == len(set(turns)), "no other workload came in between"


def test_two_plans_are_refused_on_several_devices_and_then_the_default_stays(tmp_path):
    slower = {"latencies": GUARDED, "slower_from": {splits(2): 1, splits(8): 3}}
    result, reporter = run(tmp_path, gpu(0, **slower), gpu(1, **slower), own=guarded_job(tmp_path))
    assert {plan for plan, _ in plans(tmp_path).values()} == {UNTUNED}
    assert (len(reporter.decisions), result.failures) == (4, ())


def test_a_run_on_several_devices_that_ends_before_the_second_tuning_goes_on(tmp_path):
    def stop(what):
        if what.startswith("check") and what.endswith("=8") and first.process == 2:
            raise KeyboardInterrupt

    first = gpu(0, before=stop, **REFUSED)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, first, gpu(1, **REFUSED), own=guarded_job(tmp_path))
    again = gpu(2, **REFUSED), gpu(3, **REFUSED)
    run(tmp_path, *again, own=guarded_job(tmp_path))
    assert set(plans(tmp_path).values()) == {(splits(8), 3)}
    assert len(plans(tmp_path)) == 4
    assert not any(splits(2) in raced for bench in again for *_, raced in bench.tuned)


class LostOnRenewal(FakeGpu):
    def renew(self):
        raise DeviceLost("its node is gone")


def test_a_device_that_is_lost_between_two_processes_gives_its_winners_to_another(tmp_path):
    result, _ = run(tmp_path, LostOnRenewal(LATENCIES, noise=0.01, device="cuda:0"), gpu(1))
    assert plans(tmp_path) == ALL
    assert not result.failures
