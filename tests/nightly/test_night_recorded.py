"""A plan that becomes slower in the recording of a real GPU, night after night."""

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from night_cases import SETTINGS, night

from mla_tune.measuring.recording import RecordedBench, Recording
from mla_tune.nightly.history import History
from mla_tune.nightly.outcome import Status
from mla_tune.nightly.sentinels import nights_to_cover
from mla_tune.nightly.site import RecordedSite
from mla_tune.nightly.trend import trends
from mla_tune.table import TableFile
from mla_tune.table.difference import TableDifference
from mla_tune.tuning.campaign import Campaign
from mla_tune.tuning.recorded_jobs import recorded_jobs
from mla_tune.tuning.reporters import SilentReporter
from readings import FIRST

RECORDED = Path(__file__).parents[1] / "data" / "h100" / "graph_triton_mla.jsonl.gz"
SOFTWARE_OF_TONIGHT = {"triton": "3.6.1"}


@pytest.fixture(scope="module")
def recording():
    """Every third batch size: each has nine plans, at six KV lengths."""
    whole = Recording.load(RECORDED)
    return replace(whole, tracks=whole.tracks[::3])


@pytest.fixture(scope="module")
def tuned_once(tmp_path_factory, recording):
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "tables").mkdir()
    jobs = recorded_jobs(recording, folder / "tables")
    bench = RecordedBench(recording)
    Campaign(bench, folder / "first", SETTINGS, SilentReporter()).run(jobs)
    return folder, bench.rounds_spent


@pytest.fixture
def folder(tuned_once, tmp_path):
    shutil.copytree(tuned_once[0] / "tables", tmp_path / "tables")
    return tmp_path


def table_in(folder: Path) -> Path:
    (path,) = (folder / "tables").glob("*.yaml")
    return path


def slowed(recording: Recording, entry, factor: float, **software) -> Recording:
    """The same recording with the entry's plan slower, on other software."""
    tracks = []
    for track in recording.tracks:
        if str(track.workload) == entry.shape:
            slower = (np.asarray(track.rounds[entry.plan]) * factor).tolist()
            rounds = track.rounds | {entry.plan: [tuple(each) for each in slower]}
            track = replace(track, rounds=rounds)
        tracks.append(track)
    environment = recording.environment
    environment = replace(environment, software=environment.software | software)
    return replace(recording, tracks=tuple(tracks), environment=environment)


def watched_seldom(folder: Path):
    """An entry that no night looks at every time."""
    file = TableFile.load(table_in(folder))
    published = [entry for entry in file.entries if entry.plan]
    by_gain = sorted(published, key=lambda entry: entry.speedup.median)
    return by_gain[len(by_gain) // 2]


def test_a_quiet_night_costs_a_twentieth_of_one_process(folder, recording, tuned_once):
    site = RecordedSite(recording)
    (outcome,) = night(site, folder).run()
    assert outcome.num_looked == 2
    assert 0 < site.bench.rounds_spent <= 0.05 * tuned_once[1]


def test_ten_percent_are_found_dated_and_shown(folder, recording):
    entry, path = watched_seldom(folder), table_in(folder)
    old = TableFile.load(path)
    cover = nights_to_cover(len(old.entries))
    assert cover <= 6
    # Long enough for each entry to have the nights that make a level.
    for number in range(4 * cover):
        (outcome,) = night(RecordedSite(recording, seed=number), folder, number).run()
        assert outcome.status is Status.SAME
    slow = slowed(recording, entry, 1.1, **SOFTWARE_OF_TONIGHT)
    for number in range(4 * cover, 5 * cover):
        (outcome,) = night(RecordedSite(slow, seed=number), folder, number).run()
        if outcome.reasons:
            break
    assert [reason.split(":")[0] for reason in outcome.reasons] == [entry.shape]
    assert outcome.status is Status.CHANGED

    (history,) = path.parent.glob("*.history.jsonl")
    (trend,) = [t for t in trends(History.load(history).readings) if t.shape == entry.shape]
    change = trend.changes[0]
    assert change.factor == pytest.approx(1.1, abs=0.005)
    assert change.first.day == (FIRST + timedelta(days=number)).date().isoformat()
    assert change.last_before.at < change.first.at
    assert change.differences == ("triton 3.6.0 → 3.6.1",)
    assert not change.is_of_the_card

    difference = TableDifference.of(old, TableFile.load(path))
    (shown,) = [each for each in difference.entries if each.shape == entry.shape]
    assert shown.has_moved or shown.kind != "same"


def test_a_wobble_of_one_percent_is_nothing(folder, recording):
    entry, path = watched_seldom(folder), table_in(folder)
    before = path.read_bytes()
    for number in range(20):
        wobbling = slowed(recording, entry, 1.01 if number % 2 else 0.99)
        (outcome,) = night(RecordedSite(wobbling, seed=number), folder, number).run()
        assert (outcome.status, outcome.reasons) == (Status.SAME, [])
    assert path.read_bytes() == before
    (history,) = path.parent.glob("*.history.jsonl")
    found = trends(History.load(history).readings)
    assert [trend.shape for trend in found if trend.changes] == []
