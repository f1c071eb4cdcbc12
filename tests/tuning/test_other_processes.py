import pytest
from campaign_cases import LATENCIES, WORKLOADS, run, table_job

from fake_device import DEFAULT, BiasedBench, splits, workload
from mla_tune.errors import WorkloadFailure
from mla_tune.plan.plan import UNTUNED
from mla_tune.shapes import BatchShape, Case, Workload
from mla_tune.table import TableFile


def biased(**more) -> BiasedBench:
    latencies = {plan: us for plan, us in LATENCIES.items() if plan != splits(8)}
    return BiasedBench(latencies, **({"noise": 0.01, "bias": 0.003} | more))


def entries(folder):
    return TableFile.load(folder / "heads=2.yaml").entries


GAIN = {DEFAULT: 100.0, splits(2): 90.0}


def test_winners_are_published_once_two_other_processes_have_raced_them(tmp_path):
    bench = biased()
    campaign = run(tmp_path, bench, processes=3)
    assert bench.process == 2
    assert [(e.plan, e.processes) for e in entries(tmp_path)] == [(splits(2), 3)] * 2
    told = campaign.reporter
    assert told.nominations == told.decisions == [(str(w), splits(2)) for w in WORKLOADS]
    assert told.renewals == [2, 2]


def test_all_winners_race_in_one_process_before_the_next_starts(tmp_path):
    steps = []
    run(tmp_path, biased(before=steps.append), processes=3)
    first = steps.index("renew")
    assert [step for step in steps[first:] if step == "renew" or step.startswith("load")] == [
        *("renew", "load 8q1s1k", "load 8q1s2k"),
        *("renew", "load 8q1s1k", "load 8q1s2k"),
    ]


def test_where_the_default_won_no_other_process_starts(tmp_path):
    bench = BiasedBench({DEFAULT: 100.0, splits(1): 150.0}, noise=0.01)
    run(tmp_path, bench, processes=3)
    assert bench.process == 0
    assert [entry.plan for entry in entries(tmp_path)] == [UNTUNED] * 2


def test_one_process_is_enough_where_one_is_asked_for(tmp_path):
    bench = biased()
    run(tmp_path, bench, processes=1)
    assert bench.process == 0
    assert [(e.plan, e.processes) for e in entries(tmp_path)] == [(splits(2), 1)] * 2


class OnlyInTheFirst(BiasedBench):
    """A plan that is faster in the first process alone."""

    def _latency_us(self, plan, shape):
        lost = 1.0 if self.process == 0 or plan != splits(2) else 1.12
        return super()._latency_us(plan, shape) * lost


def test_what_only_the_first_process_saw_is_not_published(tmp_path):
    run(tmp_path, OnlyInTheFirst(GAIN, noise=0.01), processes=3)
    for entry in entries(tmp_path):
        assert entry.plan == UNTUNED
        assert "num_kv_splits=2 over" in entry.note


def test_a_gain_near_the_gate_takes_two_processes_more(tmp_path):
    bench = BiasedBench({DEFAULT: 100.0, splits(2): 98.8}, noise=0.002)
    run(tmp_path, bench, processes=3)
    assert bench.process == 4
    assert {entry.processes for entry in entries(tmp_path)} == {5}


class Interrupted(BiasedBench):
    """Counts the workloads that later processes race, and stops the run at one of them."""

    stop_at = None
    later_races = 0

    def load(self, workload):
        if self.process and self.later_races + 1 == self.stop_at:
            raise KeyboardInterrupt
        self.later_races += bool(self.process)
        super().load(workload)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_an_interrupted_run_publishes_no_unconfirmed_plan_and_repeats_no_race(tmp_path, at):
    first = Interrupted(GAIN, noise=0.01)
    first.stop_at = at
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, first, processes=3)
    assert not (tmp_path / "heads=2.yaml").exists()
    again = Interrupted(GAIN, noise=0.01, seed=1)
    run(tmp_path, again, processes=3)
    assert first.later_races + again.later_races == 4
    assert [(e.plan, e.processes) for e in entries(tmp_path)] == [(splits(2), 3)] * 2


def test_a_second_run_measures_nothing_and_changes_no_byte(tmp_path):
    run(tmp_path, biased(), processes=3)
    before = (tmp_path / "heads=2.yaml").read_bytes()
    again = biased(seed=1)
    run(tmp_path, again, processes=3)
    assert (again.raced, again.checked, again.process) == ([], [], 0)
    assert (tmp_path / "heads=2.yaml").read_bytes() == before


def test_more_processes_than_last_time_race_what_is_missing(tmp_path):
    run(tmp_path, biased(), processes=2)
    again = biased(seed=1)
    run(tmp_path, again, processes=4)
    assert again.process == 2
    assert {entry.processes for entry in entries(tmp_path)} == {4}


class DiesElsewhere(BiasedBench):
    dies = splits(2)

    def race(self, plans, rounds, seed, cases=None):
        if self.process:
            self.race_faults = {self.dies: "died"}
        return super().race(plans, rounds, seed, cases)


def test_a_plan_that_dies_in_another_process_is_quarantined_and_not_tried_again(tmp_path):
    bench = DiesElsewhere(GAIN, noise=0.01)
    run(tmp_path, bench, processes=3)
    assert bench.process == 1
    for entry in entries(tmp_path):
        assert (entry.plan, entry.unproven) == (UNTUNED, None)
        assert "num_kv_splits=2 failed in another process (died" in entry.note
    assert "num_kv_splits: 2" in (tmp_path / "study" / "quarantine.yaml").read_text()


def test_where_the_default_dies_in_another_process_nothing_is_proven(tmp_path):
    bench = DiesElsewhere(GAIN, noise=0.01)
    bench.dies = DEFAULT
    run(tmp_path, bench, processes=3)
    found = [(e.plan, e.unproven, e.default_us) for e in entries(tmp_path)]
    assert found == [(UNTUNED, splits(2), None)] * 2


class LoadsOnce(BiasedBench):
    def load(self, workload):
        if self.process and str(workload) != "8q1s2k":
            raise WorkloadFailure("cannot load: it is broken")
        super().load(workload)


def test_a_workload_that_does_not_load_elsewhere_stays_undecided(tmp_path):
    campaign = run(tmp_path, LoadsOnce(GAIN), processes=3)
    assert [entry.shape for entry in entries(tmp_path)] == ["8q1s2k"]
    (failure,) = campaign.tally.failures
    assert (failure.shapes, failure.error.what) == (("8q1s1k",), "cannot load: it is broken")
    run(tmp_path, biased(), processes=3)
    assert {entry.processes for entry in entries(tmp_path)} == {3}


def test_a_cause_that_fails_three_in_a_row_is_said_once_for_the_rest(tmp_path):
    many = [workload(f"8q1s{number}k") for number in (1, 3, 4, 5, 6, 2)]
    bench = LoadsOnce(GAIN)
    campaign = run(tmp_path, bench, [table_job(tmp_path, workloads=many)], processes=3)
    assert [len(failure.shapes) for failure in campaign.tally.failures] == [1, 1, 1, 3]
    assert bench.process == 1


def guarded(*guards_us: float):
    """A graph's workload of one listed length and guards, and a bench with these at the guards.

    A plan takes 50 µs at the listed length, the default 100 there and at all guards.
    """
    lengths = [1024, *(2048 << number for number in range(len(guards_us)))]
    shapes = [BatchShape.parse(f"8q1s{length}") for length in lengths]
    cases = Workload(tuple(Case(s, float(n == 0)) for n, s in enumerate(shapes)))
    plan = dict(zip(lengths, (50.0, *guards_us), strict=True))
    latencies = {DEFAULT: dict.fromkeys(lengths, 100.0), splits(2): plan}
    return cases, BiasedBench(latencies, noise=0.002, bias=0.001)


def test_other_processes_leave_out_the_guards_that_are_far_from_a_loss(tmp_path):
    cases, bench = guarded(80.0, 99.0)
    loaded = []
    bench.before = lambda what: loaded.append(bench.workload) if what.startswith("race") else None
    run(tmp_path, bench, [table_job(tmp_path, workloads=[cases])], processes=3)
    (entry,) = entries(tmp_path)
    assert (entry.plan, entry.processes) == (splits(2), 3)
    assert loaded[0] == cases
    assert [case.shape.max_kv_len for case in loaded[-1].cases] == [1024, 4096]
    far, near = entry.cases[1:]
    assert far.speedup.median == pytest.approx(1.25, rel=0.01)
    assert near.speedup.median == pytest.approx(1.01, rel=0.01)


def test_a_clear_gain_on_a_quiet_device_takes_a_third_of_the_rounds(tmp_path):
    for noise, rounds in ((0.002, 16), (0.05, 48)):
        folder = tmp_path / str(rounds)
        folder.mkdir()
        bench = BiasedBench(GAIN | {splits(2): 50.0}, noise=noise, bias=0.001)
        renewed = []
        bench.before = lambda what, bench=bench, renewed=renewed: (
            renewed.append(len(bench.race_rounds)) if what == "renew" else None
        )
        run(folder, bench, [table_job(folder, workloads=[workload()])], processes=3)
        first, second = renewed
        assert sum(bench.race_rounds[first:second]) == rounds
