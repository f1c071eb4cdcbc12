import os

import pytest

from fake_device import ENVIRONMENT
from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.knobs import Plan
from mla_tune.shapes import MlaDimensions
from mla_tune.table import Entry, Header, Publication, TableFile, merge, publication

HEADER = Header.of(ENVIRONMENT, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 4096)


def entry(shape: str, latency_us: float = 10.0) -> Entry:
    return Entry(shape=shape, plan=Plan(num_kv_splits=2), latency_us=latency_us)


def found(path) -> list[str]:
    return [entry.shape for entry in TableFile.load(path).entries]


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def slow_disk(monkeypatch, clock):
    """Every write takes a second of the clock; returns the texts written."""
    written, write = [], publication.write_atomically

    def slow(path, text):
        clock.now += 1.0
        written.append(text)
        write(path, text)

    monkeypatch.setattr(publication, "write_atomically", slow)
    return written


def test_the_first_entry_is_due_at_once_and_others_by_what_a_write_costs(
    tmp_path, clock, slow_disk
):
    table = Publication(tmp_path / "t.yaml", HEADER, clock)
    assert table.is_due
    table.write([entry("q1s1k")])
    assert len(slow_disk) == 1
    clock.now += publication.PACE - 0.1
    assert not table.is_due
    clock.now += 0.2
    assert table.is_due


def test_a_table_that_nobody_else_changes_is_read_once(tmp_path, monkeypatch):
    path = tmp_path / "t.yaml"
    merge(path, HEADER, [entry("q1s1k")])
    loads, load = [], TableFile.load
    monkeypatch.setattr(TableFile, "load", lambda path: (loads.append(path), load(path))[1])
    table = Publication(path, HEADER)
    for shape in ("q1s2k", "q1s3k", "q1s4k"):
        table.write([entry(shape)])
    assert len(loads) == 1
    assert found(path) == ["q1s1k", "q1s2k", "q1s3k", "q1s4k"]


def test_runs_that_share_a_table_lose_nothing_of_each_other(tmp_path):
    path = tmp_path / "t.yaml"
    one, other = Publication(path, HEADER), Publication(path, HEADER)
    for number in range(1, 5):
        one.write([entry(f"q1s{number}k")])
        other.write([entry(f"2q1s{number}k")])
    assert len(found(path)) == 8


def test_a_hand_that_edits_the_table_during_a_run_is_respected(tmp_path):
    path = tmp_path / "t.yaml"
    table = Publication(path, HEADER)
    table.write([entry("q1s1k")])
    path.write_text(path.read_text() + "# mine\n")
    table.write([entry("q1s2k")])
    assert path.read_text().endswith("# mine\n")
    assert found(path) == ["q1s1k", "q1s2k"]


def test_a_table_removed_during_a_run_is_begun_anew(tmp_path):
    path = tmp_path / "t.yaml"
    table = Publication(path, HEADER)
    table.write([entry("q1s1k")])
    path.unlink()
    table.write([entry("q1s2k")])
    assert found(path) == ["q1s2k"]


def test_what_the_table_says_already_is_not_written_again(tmp_path, clock, slow_disk):
    path = tmp_path / "t.yaml"
    for _ in range(3):
        Publication(path, HEADER, clock).write([entry("q1s1k")])
    assert len(slow_disk) == 1


def test_a_table_with_anchors_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "t.yaml"
    merge(path, HEADER, [entry("q1s1k")])
    row = "  - shape: {}\n    plan: {}\n    latency_us: 5\n"
    text = (
        path.read_text()
        + row.format("2q1s1k", "&p {num_kv_splits: 4}")
        + row.format("3q1s1k", "*p")
    )
    path.write_text(text)
    with pytest.raises(InputError, match=r"t\.yaml:\d+: a table has no references \(\*p\)"):
        merge(path, HEADER, [entry("4q1s1k")])
    assert path.read_text() == text


SPELLINGS = {
    "a tagged list": "entries: !!seq\n  - shape: q1s1k\n    plan: default\n    latency_us: 3\n",
    "an anchored list": "entries: &all\n  - shape: q1s1k\n    plan: default\n    latency_us: 3\n",
    "explicit keys": "? entries\n:\n  - ? shape\n    : q1s1k\n    ? plan\n    : default\n"
    "    ? latency_us\n    : 3\n",
    "a note over lines": "entries:\n  - shape: q1s1k\n    plan: default\n    latency_us: 3\n"
    '    note: "one\n      - two\n      # three"\n',
    "tabs after the dash": "entries:\n  -\tshape: q1s1k\n  \tplan: default\n",
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_a_readers_spelling_is_merged_into_what_reads_back_or_refused(tmp_path, case):
    path = tmp_path / "t.yaml"
    merge(path, HEADER, [])
    path.write_text(path.read_text().replace("entries:\n", SPELLINGS[case]))
    try:
        before = TableFile.load(path).entries
    except InputError:
        return
    merge(path, HEADER, [entry("q1"), entry("q1s2k")])
    after = {entry.shape: entry for entry in TableFile.load(path).entries}
    assert sorted(after) == ["q1", "q1s1k", "q1s2k"]
    assert after["q1s1k"] == before[0]


def test_a_text_that_would_not_read_back_replaces_nothing(tmp_path, monkeypatch):
    path = tmp_path / "t.yaml"
    merge(path, HEADER, [entry("q1s1k")])
    before = path.read_bytes()
    monkeypatch.setattr(publication, "entry_text", lambda entry: f"  - shape: {entry.shape}\n")
    with pytest.raises(InputError, match="cannot be spelled so that it reads back"):
        merge(path, HEADER, [entry("q1s2k")])
    assert path.read_bytes() == before


def test_a_lock_that_is_a_planted_link_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".t.yaml.lock").symlink_to(victim)
    with pytest.raises(EnvironmentFailure):
        merge(tmp_path / "t.yaml", HEADER, [])
    assert victim.read_text() == "mine"


def test_a_new_table_keeps_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        merge(tmp_path / "t.yaml", HEADER, [])
    finally:
        os.umask(before)
    assert (tmp_path / "t.yaml").stat().st_mode & 0o777 == 0o640
