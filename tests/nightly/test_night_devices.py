"""Nights on several cards: made-up ones, at the tables of one folder."""

import io
import shutil
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from night_cases import GPU, LATENCIES, SHAPES, FakeGpu, night, tune
from rich.console import Console

from fake_device import DEFAULT, splits
from mla_tune.cli.night_view import show_plan
from mla_tune.errors import DeviceLost, EnvironmentFailure, InputError
from mla_tune.nightly.estimate import handed_out
from mla_tune.nightly.history import History
from mla_tune.nightly.outcome import Status
from mla_tune.nightly.retune import _alone_in
from mla_tune.table import TableFile

HEADS = {2: SHAPES[:5], 4: SHAPES[:2], 8: SHAPES[:3]}
NEW_DRIVER = replace(GPU, software=GPU.software | {"driver": "590.1"})
OTHER = replace(GPU, device_name="NVIDIA Other")


@pytest.fixture(scope="module")
def tuned_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    for heads, shapes in HEADS.items():
        tune(FakeGpu(seed=heads), folder, heads, shapes)
    return folder


@pytest.fixture
def folder(tuned_once, tmp_path):
    shutil.copytree(tuned_once / "tables", tmp_path / "tables")
    return tmp_path


def cards(**more):
    """Two cards."""
    return [FakeGpu(seed=40 + n, card=f"card000{n}", name=f"cuda:{n}", **more) for n in range(2)]


def cards_together(**more):
    """Two cards that begin their first batch shape together: either has a table."""
    together, found = threading.Barrier(2, timeout=20), cards(**more)
    for site in found:
        site.bench.before = _first_with(together, set())
    return found


def _first_with(together, done):
    def before(what):
        if what.startswith("load") and not done:
            done.add(what)
            together.wait()

    return before


def lost_after(site, count, wanted=""):
    """Have ``site`` lost when it is asked for the first time after ``count`` of ``wanted``."""
    first, asked = site.bench.before, Counter()

    def before(what):
        first(what)
        asked[what.startswith(wanted)] += 1
        if asked[True] > count:
            raise DeviceLost(f"{site.name} has fallen off the bus")

    site.bench.before = before
    return site


def tables(folder: Path) -> dict:
    return {path: TableFile.load(path) for path in (folder / "tables").glob("*.yaml")}


def readings(folder: Path) -> list:
    histories = (folder / "tables").glob("*.history.jsonl")
    return [(path.name, each) for path in histories for each in History.load(path).readings]


def tuned_by(folder: Path) -> dict:
    """The cards that each table was tuned on, by its history's name."""
    found: dict = {}
    for name, reading in readings(folder):
        found.setdefault(name, set()).add(reading.card)
    return found


def assert_each_once(folder: Path, count: int = 1):
    """Each entry has so many new lines, and the plan that is the best."""
    seen = Counter((name, reading.shape) for name, reading in readings(folder))
    assert len(seen) == sum(map(len, HEADS.values()))
    assert set(seen.values()) == {count}
    for file in tables(folder).values():
        assert {entry.plan for entry in file.entries} == {splits(2)}
        assert {entry.processes for entry in file.entries} == {3}


def test_each_table_is_looked_at_and_tuned_whole_on_one_card(folder):
    found = night(cards(), folder).run()
    assert {outcome.status for outcome in found} == {Status.SAME}
    assert sum(outcome.num_looked for outcome in found) == 3
    assert all(len(own) == 1 for own in tuned_by(folder).values())
    both = cards_together(environment=NEW_DRIVER)
    found = night(both, folder, 1).run()
    assert {outcome.status for outcome in found} == {Status.CHANGED}
    of_tune = [(name, each) for name, each in readings(folder) if each.kind == "full"]
    owners = {(name, each.card) for name, each in of_tune}
    assert len(owners) == len(HEADS)
    assert {card for _, card in owners} == {"card0000", "card0001"}
    assert all(site.samples for site in both)


def test_the_longest_table_goes_first_and_the_plan_says_where(folder):
    made = night(cards_together(environment=NEW_DRIVER), folder)
    assert [len(table.target.entries) for table in made.in_order] == [5, 3, 2]
    console = Console(file=io.StringIO(), width=200)
    show_plan(console, made)
    told = console.file.getvalue()
    lines = [line.split() for line in told.splitlines() if line.startswith("TORCH")]
    assert [line[-1] for line in lines] == ["cuda:0", "cuda:1", "cuda:1"]
    assert "NVIDIA Fake, by the number of cards: 84 s on 1, 42 s on 2" in told


def test_work_is_handed_to_the_card_that_is_free_first():
    assert handed_out([5, 3, 1, 1, 2], 2) == ([0, 1, 1, 1, 0], 7)
    assert handed_out([5, 3], 4) == ([0, 1], 5)
    assert handed_out([], 2) == ([], 0)


def test_each_kind_of_card_has_its_own_tables_and_a_new_one_gets_new_ones(folder):
    before = {path: file.document.text for path, file in tables(folder).items()}
    one, other = cards()
    other.bench.environment = other.environment = OTHER
    found = {outcome.path: outcome for outcome in night([one, other], folder).run()}
    assert {found[path].status for path in before} == {Status.SAME}
    made = {path: file for path, file in tables(folder).items() if path not in before}
    assert {found[path].status for path in made} == {Status.NEW}
    assert len(made) == len(before)
    assert {file.header.device.name for file in made.values()} == {"NVIDIA Other"}
    assert {path: path.read_text() for path in before} == before
    seen = {(name.split("-heads")[0], each.card, each.kind) for name, each in readings(folder)}
    assert seen == {
        ("TORCH_MLA-NVIDIA_Fake", one.card, "sentinel"),
        ("TORCH_MLA-NVIDIA_Other", other.card, "full"),
    }


@pytest.mark.parametrize("after", [0, 12, 24])
def test_a_card_that_is_lost_while_it_tunes_loses_nothing_and_nothing_is_done_twice(folder, after):
    both = cards_together(environment=NEW_DRIVER)
    lost_after(both[0], after, "race")
    found = night(both, folder).run()
    assert {outcome.status for outcome in found} == {Status.CHANGED}
    assert_each_once(folder)
    tried = Counter(trial for site in both for trial in site.bench.tried)
    assert set(tried) == {
        (heads, shape, plan)
        for heads, shapes in HEADS.items()
        for shape in shapes
        for plan in LATENCIES
        if plan != DEFAULT
    }
    assert sum(tried.values()) - len(tried) <= 1, "but for the one that was under way"
    assert not [*(folder / "study" / "retune").iterdir()]


def test_what_two_cards_showed_is_in_no_verdict(folder):
    both = cards_together(environment=NEW_DRIVER)
    slow = {(shape, plan): 3.0 for shape in SHAPES for plan in both[0].latencies_us}
    both[0].bench.slower = slow
    lost_after(both[0], 24, "race")
    night(both, folder).run()
    assert_each_once(folder)
    for _, reading in readings(folder):
        assert reading.latency_us == pytest.approx(80, rel=0.05)
        assert reading.card == both[1].card


def test_a_card_that_is_lost_while_it_looks_leaves_its_sentinels_to_another(folder):
    both, lost = cards(slower={(shape, splits(2)): 1.2 for shape in SHAPES}), []

    def before(what):
        if what == "renew" and not lost:
            lost.append(what)
            raise DeviceLost("it has fallen off the bus")

    for site in both:
        site.bench.before = before
    found = night(both, folder).run()
    changed = [outcome for outcome in found if outcome.reasons]
    assert {outcome.status for outcome in changed} == {Status.CHANGED}
    plans = {entry.plan for o in changed for entry in TableFile.load(o.path).entries}
    assert plans == {splits(8)}
    by_card = Counter(each.card for _, each in readings(folder) if each.kind == "sentinel")
    assert sorted(by_card.values()) == [3, 3], "the second look is another card's"


def test_tables_of_a_kind_that_has_no_card_left_fail_and_the_others_go_on(folder):
    one, other = cards()
    other.bench.environment = other.environment = OTHER
    lost_after(other, 0)
    found = night([one, other], folder).run()
    by_status = Counter(outcome.status for outcome in found)
    assert by_status == {Status.SAME: 3, Status.FAILED: 3}
    notes = {note for outcome in found for note in outcome.notes}
    assert notes == {"no card is left for it: cuda:1 has fallen off the bus"}
    again = FakeGpu(seed=5, environment=OTHER)
    found = night([again], folder, 1).run()
    assert {outcome.status for outcome in found} == {Status.NEW}


def test_the_budget_is_of_all_cards_together(folder):
    both = cards_together(environment=NEW_DRIVER)
    half = 6.0  # of the 14 s that all three take
    found = night(both, folder, budget_s=half).run()
    assert Status.LEFT in {outcome.status for outcome in found}
    spent = sum(0.01 * site.samples for site in both)
    # A batch shape that was begun is ended.
    assert half <= spent < 1.5 * half
    rest = cards_together(environment=NEW_DRIVER)
    found = night(rest, folder, 1).run()
    assert {outcome.status for outcome in found} <= {Status.SAME, Status.CHANGED}
    assert_each_once(folder)


def test_a_full_disk_or_an_interrupt_stops_all_cards_and_the_next_night_goes_on(folder):
    for failure in (EnvironmentFailure("no space left"), KeyboardInterrupt()):
        both = cards_together(environment=NEW_DRIVER)
        first, asked = both[0].bench.before, []

        def before(what, first=first, asked=asked, failure=failure):
            first(what)
            asked.append(what)
            if len(asked) > 15:
                raise failure

        both[0].bench.before = before
        with pytest.raises(type(failure)):
            night(both, folder).run()
        assert all(site.is_stopped for site in both)
    night(cards_together(environment=NEW_DRIVER), folder).run()
    assert_each_once(folder)


def test_two_nights_of_one_of_the_kinds_are_refused(tmp_path):
    one, other = FakeGpu(), FakeGpu(environment=OTHER)
    with _alone_in(tmp_path, [other]):
        with (
            pytest.raises(InputError, match="for NVIDIA Other"),
            _alone_in(tmp_path, [one, other]),
        ):
            pass
        with _alone_in(tmp_path, [one]):
            pass
