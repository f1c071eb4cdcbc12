import errno
import os
from dataclasses import replace

import pytest
from filelock import FileLock

from fake_device import ENVIRONMENT
from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.plan.plan import Plan
from mla_tune.shapes import MlaDimensions
from mla_tune.table import (
    Entry,
    Header,
    Publication,
    TableFile,
    merge,
    publication,
)

HEADER = Header.of(ENVIRONMENT, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 4096)


def entry(shape: str, latency_us: float = 10.0, **more) -> Entry:
    fields = {"latency_us": latency_us, "default_us": 20.0} | more
    return Entry(shape=shape, plan=Plan(num_kv_splits=2), **fields)


def test_a_table_that_is_true_for_something_else_is_left_alone(tmp_path):
    path = tmp_path / "t.yaml"
    merge(path, HEADER, [entry("q1s1k")])
    before = path.read_bytes()
    other = HEADER.model_copy(update={"kv_cache_dtype": "fp8"})
    with pytest.raises(InputError) as caught:
        merge(path, other, [entry("q1s2k")])
    assert "kv_cache_dtype auto, this run is for fp8" in caught.value.what
    assert "--replace" in caught.value.remedy
    assert path.read_bytes() == before


def test_entries_of_another_kernel_are_not_mixed_into_a_table(tmp_path):
    digests = {"triton_decode_attention.py": "1", "triton_mla.py": "2"}

    def header(known):
        environment = replace(ENVIRONMENT, software={"vllm": "0.33.0"}, digests=known)
        return Header.of(environment, "TRITON_MLA", MlaDimensions(2), "auto", "graph", 4096)

    path = tmp_path / "t.yaml"
    merge(path, header(digests), [entry("q1s1k")])
    merge(path, header(digests), [entry("q1s2k")])
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        merge(path, header(digests | {"triton_mla.py": "patched"}), [entry("q1s4k")])
    assert "was measured with another triton_mla.py than this run would be" in caught.value.what
    assert path.read_bytes() == before
    assert TableFile.load(path).header == header(digests)


def test_a_table_of_before_there_were_digests_is_added_to_and_gets_none(tmp_path):
    path = tmp_path / "t.yaml"
    environment = replace(ENVIRONMENT, software={"vllm": "0.33.0"})
    of = (environment, "TRITON_MLA", MlaDimensions(2), "auto", "graph", 4096)
    merge(path, Header.of(*of), [entry("q1s1k")])
    digests = {"triton_decode_attention.py": "1", "triton_mla.py": "2"}
    newer = Header.of(replace(environment, digests=digests), *of[1:])
    merge(path, newer, [entry("q1s2k")])
    found = TableFile.load(path)
    assert (found.header.schema_version, found.header.software_digests) == (2, None)
    assert len(found.entries) == 2


def _full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_table_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "t.yaml"
    merge(path, HEADER, [entry("q1s1k")])
    before, files = path.read_bytes(), sorted(tmp_path.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", _full)
        with pytest.raises(EnvironmentFailure, match="No space left"):
            merge(path, HEADER, [entry("q1s2k")])
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == files
    merge(path, HEADER, [entry("q1s2k")])
    assert len(TableFile.load(path).entries) == 2


def test_a_table_that_is_a_link_is_still_one_after_a_merge(tmp_path):
    real, link = tmp_path / "real.yaml", tmp_path / "t.yaml"
    merge(real, HEADER, [entry("q1s1k")])
    link.symlink_to(real)
    merge(link, HEADER, [entry("q1s2k")])
    assert link.is_symlink()
    assert len(TableFile.load(real).entries) == 2


def test_a_table_locked_for_too_long_is_an_error_that_names_the_lock(tmp_path, monkeypatch):
    path = tmp_path / "t.yaml"

    def impatient(lock_path, timeout):
        del timeout
        return FileLock(lock_path, timeout=0)

    monkeypatch.setattr(publication, "FileLock", impatient)
    held = FileLock(tmp_path / ".t.yaml.lock", is_singleton=False)
    with held, pytest.raises(EnvironmentFailure) as caught:
        merge(path, HEADER, [])
    assert ".t.yaml.lock" in caught.value.remedy


def shapes_in(path) -> list[str]:
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
    assert shapes_in(path) == ["q1s1k", "q1s2k", "q1s3k", "q1s4k"]


def test_runs_that_share_a_table_lose_nothing_of_each_other(tmp_path):
    path = tmp_path / "t.yaml"
    one, other = Publication(path, HEADER), Publication(path, HEADER)
    for number in range(1, 5):
        one.write([entry(f"q1s{number}k")])
        other.write([entry(f"2q1s{number}k")])
    assert len(shapes_in(path)) == 8


def test_a_hand_that_edits_the_table_during_a_run_is_respected(tmp_path):
    path = tmp_path / "t.yaml"
    table = Publication(path, HEADER)
    table.write([entry("q1s1k")])
    path.write_text(path.read_text() + "# mine\n")
    table.write([entry("q1s2k")])
    assert path.read_text().endswith("# mine\n")
    assert shapes_in(path) == ["q1s1k", "q1s2k"]


def test_a_table_removed_during_a_run_is_begun_anew(tmp_path):
    path = tmp_path / "t.yaml"
    table = Publication(path, HEADER)
    table.write([entry("q1s1k")])
    path.unlink()
    table.write([entry("q1s2k")])
    assert shapes_in(path) == ["q1s2k"]


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


def test_writing_takes_a_twentieth_of_a_run_however_long_the_table(tmp_path, monkeypatch, clock):
    spent, write = [], publication.write_atomically

    def write_by_size(path, text):
        spent.append(0.1 * text.count("- shape:"))
        clock.now += spent[-1]
        write(path, text)

    monkeypatch.setattr(publication, "write_atomically", write_by_size)
    path = tmp_path / "t.yaml"
    table, waiting = Publication(path, HEADER, clock), []
    for number in range(2, 202):
        clock.now += 1.0  # what an entry takes to tune
        waiting.append(entry(f"{number}q1s1k"))
        if table.is_due:
            table.write(waiting)
            waiting = []
    table.write(waiting)
    assert sum(spent[:-1]) <= 200 / publication.PACE + spent[-2]
    assert len(shapes_in(path)) == 200
