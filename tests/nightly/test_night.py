import shutil
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import pytest
from night_cases import GPU, LATENCIES, SHAPES, FakeGpu, night, tune

from fake_device import DEFAULT, splits
from mla_tune.nightly.history import History
from mla_tune.nightly.outcome import Status
from mla_tune.nightly.sentinels import nights_to_cover
from mla_tune.nightly.trend import trends
from mla_tune.plan.plan import UNTUNED
from mla_tune.table import TableFile

FEW = SHAPES[:7]


@dataclass(frozen=True)
class Tuned:
    """A folder with one table, and how many samples that took."""

    folder: Path
    path: Path
    samples: int


def tuned_folder(folder: Path, shapes) -> Tuned:
    site = FakeGpu(seed=1)
    path = tune(site, folder, shapes=shapes)
    assert {entry.plan for entry in TableFile.load(path).entries} == {splits(2)}
    return Tuned(folder, path, site.samples)


def copied(was: Tuned, folder: Path) -> Tuned:
    shutil.copytree(was.folder, folder, dirs_exist_ok=True)
    return replace(was, folder=folder, path=folder / was.path.relative_to(was.folder))


@pytest.fixture(scope="module")
def tuned_once(tmp_path_factory):
    return [tuned_folder(tmp_path_factory.mktemp("tuned"), shapes) for shapes in (SHAPES, FEW)]


@pytest.fixture
def tuned(tuned_once, tmp_path):
    """Twenty shapes."""
    return copied(tuned_once[0], tmp_path)


@pytest.fixture
def few(tuned_once, tmp_path):
    """Seven of them."""
    return copied(tuned_once[1], tmp_path)


def kept(path):
    (history,) = path.parent.glob("*.history.jsonl")
    return History.load(history)


def test_an_unchanged_stack_costs_a_twentieth(tuned):
    folder, path, samples = astuple(tuned)
    before = path.read_bytes()
    site = FakeGpu(seed=2)
    (outcome,) = night(site, folder).run()
    assert (outcome.status, outcome.num_looked, outcome.num_tuned) == (Status.SAME, 6, 0)
    assert 0 < site.samples <= 0.05 * samples
    assert path.read_bytes() == before


def test_every_entry_is_looked_at_within_a_few_nights(tuned):
    folder, path, _ = astuple(tuned)
    assert nights_to_cover(len(SHAPES)) == 5
    for number in range(5):
        night(FakeGpu(seed=number), folder, number).run()
    assert set(kept(path).by_shape) == set(SHAPES)
    assert {reading.kind for reading in kept(path).readings} == {"sentinel"}


def test_a_quiet_month_tunes_nothing(tuned):
    folder, _, _ = astuple(tuned)
    tunes = [night(FakeGpu(seed=n), folder, n).run()[0].num_tuned for n in range(30)]
    assert sum(map(bool, tunes)) == 0


def test_a_second_night_at_once_has_nothing_left(tuned):
    folder, _, _ = astuple(tuned)
    night(FakeGpu(seed=2), folder).run()
    again = FakeGpu(seed=3)
    (outcome,) = night(again, folder).run()
    assert (outcome.status, again.samples) == (Status.SAME, 0)


def test_drift_is_looked_at_in_a_second_process_and_then_followed(few):
    folder, path, _ = astuple(few)
    slow = {(shape, splits(2)): 1.2 for shape in FEW}
    site = FakeGpu(seed=2, slower=slow)
    (outcome,) = night(site, folder).run()
    assert outcome.status is Status.CHANGED
    assert outcome.num_tuned == len(FEW)
    assert site.bench.process >= 3
    assert {entry.plan for entry in TableFile.load(path).entries} == {splits(8)}
    (again,) = night(FakeGpu(seed=3, slower=slow), folder, 1).run()
    assert again.status is Status.SAME
    assert not (folder / "study" / "retune").exists() or not list(
        (folder / "study" / "retune").iterdir()
    )


def test_one_bad_process_costs_a_second_look_alone(few):
    folder, _, samples = astuple(few)

    class BadFirst(FakeGpu):
        def __post_init__(self):
            super().__post_init__()
            bench, slower = self.bench, {(shape, splits(2)): 1.1 for shape in FEW}
            bench.slower = slower
            bench.before = lambda what: slower.clear() if what == "renew" else None

    site = BadFirst(seed=2)
    (outcome,) = night(site, folder).run()
    assert (outcome.status, outcome.num_tuned) == (Status.SAME, 0)
    assert outcome.num_looked == 4
    assert site.samples < 0.1 * samples


def test_a_plan_that_fails_now_is_followed(few):
    folder, path, _ = astuple(few)
    (outcome,) = night(FakeGpu(seed=2, faults={splits(2): "died"}), folder).run()
    assert outcome.status is Status.CHANGED
    assert {entry.plan for entry in TableFile.load(path).entries} == {splits(8)}
    assert "scripted" in outcome.reasons[0]
    (again,) = night(FakeGpu(seed=3, faults={splits(2): "died"}), folder, 1).run()
    assert again.status is Status.SAME


def test_changed_software_tunes_its_tables_warm(few):
    folder, path, samples = astuple(few)
    site = FakeGpu(seed=2, environment=replace(GPU, software=GPU.software | {"driver": "590.1"}))
    (outcome,) = night(site, folder).run()
    assert outcome.reasons == ["driver 580.1 → 590.1"]
    assert (outcome.status, outcome.num_tuned) == (Status.CHANGED, len(FEW))
    assert TableFile.load(path).header.software["driver"] == "590.1"
    of_first = [plans[-1] for key, plans in site.bench.raced if key == FEW[0]]
    assert list(dict.fromkeys(of_first))[:2] == [DEFAULT, splits(2)]
    assert site.samples <= samples
    assert {reading.kind for reading in kept(path).readings} == {"full"}
    assert not list(path.parent.glob("*.replaced*"))


def test_a_new_gpu_gets_a_table_of_the_same_shapes(few):
    folder, path, _ = astuple(few)
    before = path.read_bytes()
    other = replace(GPU, device_name="NVIDIA Other")
    site = FakeGpu(seed=2, environment=other)
    (outcome,) = night(site, folder).run()
    assert outcome.status is Status.NEW
    assert outcome.reasons == ["new for NVIDIA Other, the shapes of NVIDIA Fake"]
    assert path.read_bytes() == before
    made = TableFile.load(outcome.path)
    assert {entry.shape for entry in made.entries} == set(FEW)
    (again,) = night(FakeGpu(seed=3, environment=other), folder, 1).run()
    assert (again.path, again.status) == (outcome.path, Status.SAME)


def test_a_night_that_is_cut_short_goes_on(few):
    folder, path, samples = astuple(few)
    slow = {(shape, splits(2)): 1.2 for shape in FEW}
    one = FakeGpu(seed=2, slower=slow)
    (outcome,) = night(one, folder, budget_s=6.0).run()
    assert outcome.status is Status.LEFT
    before = path.read_bytes()
    two = FakeGpu(seed=3, slower=slow)
    (outcome,) = night(two, folder, 1).run()
    assert outcome.reasons == ["a night before was cut short"]
    assert outcome.status is Status.CHANGED
    assert path.read_bytes() != before
    # What the first night had screened was not screened again.
    assert one.samples + two.samples < 1.3 * samples


def test_a_kill_between_two_looks_forgets_no_suspect(few):
    folder, _, _ = astuple(few)
    slow = {(shape, splits(2)): 1.2 for shape in FEW}

    class Killed(FakeGpu):
        def __post_init__(self):
            super().__post_init__()
            self.bench.before = _raise_at("renew")

    with pytest.raises(KeyboardInterrupt):
        night(Killed(seed=2, slower=slow), folder).run()
    (outcome,) = night(FakeGpu(seed=3, slower=slow), folder).run()
    assert outcome.status is Status.CHANGED


def _raise_at(word):
    def before(what):
        if what == word:
            raise KeyboardInterrupt

    return before


def test_default_entries_are_watched_by_their_latency(tmp_path):
    even = dict.fromkeys(LATENCIES, 100.0)
    path = tune(FakeGpu(seed=1, latencies_us=even), tmp_path, shapes=FEW)
    assert {entry.plan for entry in TableFile.load(path).entries} == {UNTUNED}
    for number in range(4):
        night(FakeGpu(seed=number, latencies_us=even), tmp_path, number).run()
    slow = {(shape, DEFAULT): 1.2 for shape in SHAPES}
    site = FakeGpu(seed=9, latencies_us=even, slower=slow)
    (outcome,) = night(site, tmp_path, 4).run()
    assert "default's latency +" in outcome.reasons[0]
    assert outcome.status is Status.CHANGED
    changed = TableFile.load(path).entries
    assert all(entry.plan for entry in changed)


def test_a_default_entry_is_tuned_where_a_plan_that_tied_has_become_faster(tmp_path):
    even = dict.fromkeys(LATENCIES, 120.0) | {DEFAULT: 100.0, splits(2): 100.2}
    one = FakeGpu(seed=1, latencies_us=even)
    path = tune(one, tmp_path)
    assert {entry.ties for entry in TableFile.load(path).entries} == {(splits(2),)}
    quiet = FakeGpu(seed=2, latencies_us=even)
    (outcome,) = night(quiet, tmp_path).run()
    assert (outcome.status, outcome.num_looked) == (Status.SAME, 6)
    assert sum(reading.rival is not None for reading in kept(path).readings) == 1
    assert quiet.samples <= 0.05 * one.samples
    fast = {(shape, splits(2)): 0.9 for shape in SHAPES}
    (outcome,) = night(FakeGpu(seed=3, latencies_us=even, slower=fast), tmp_path, 1).run()
    assert ": speed-up of num_kv_splits=2 +" in outcome.reasons[0]
    assert outcome.status is Status.CHANGED
    assert {entry.plan for entry in TableFile.load(path).entries} == {splits(2)}


def test_history_dates_what_the_sentinels_saw(tuned):
    folder, path, _ = astuple(tuned)
    for number in range(24):
        night(FakeGpu(seed=number), folder, number).run()
    slow = {(SHAPES[7], splits(2)): 1.1}
    found = []
    for number in range(24, 24 + nights_to_cover(len(SHAPES))):
        (outcome,) = night(FakeGpu(seed=number, slower=slow), folder, number).run()
        found += outcome.reasons
    assert any(reason.startswith(f"{SHAPES[7]}: speed-up -") for reason in found)
    slower = [trend for trend in trends(kept(path).readings) if trend.regression]
    assert [trend.shape for trend in slower] == [SHAPES[7]]
    assert slower[0].regression.factor == pytest.approx(1.1, rel=0.02)
    assert slower[0].regression.first.day >= "2026-11-25"
