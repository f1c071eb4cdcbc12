"""What an engine records, and what becomes of it when a disk or a process fails."""

import json
import multiprocessing
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mla_tune.traffic import writer as writer_module
from mla_tune.traffic.histogram import MOST_KINDS
from mla_tune.traffic.histogram_file import HistogramFile, histogram_files
from mla_tune.traffic.step_parts import StepPart
from mla_tune.traffic.writer import TrafficWriter
from tabled_engine import H200

Row = tuple[str, str, int, int, int, int, int]


def rows(path: Path) -> list[Row]:
    """(mode, outcome, batch, query, mean and longest KV length, real requests) of a record."""
    (file,) = histogram_files(path)
    return [
        (s.mode, s.outcome, s.batch, s.query_len, s.kv_len, s.longest_kv_len, s.requests or 0)
        for s in HistogramFile.load(file).steps
    ]


def step(
    lens: list[int], decodes: int | None = None, query_len: int = 1, prefill_tokens: int = 0
) -> tuple[Any, Any]:
    """A batch of ``lens`` KV lengths and its metadata; the first ``decodes`` are decodes."""
    decodes = len(lens) if decodes is None else decodes
    batch = SimpleNamespace(
        seq_lens_cpu_upper_bound=torch.tensor(lens, dtype=torch.int32),
        num_actual_tokens=decodes * query_len + prefill_tokens,
    )
    metadata = SimpleNamespace(
        num_reqs=len(lens), num_decodes=decodes, num_decode_tokens=decodes * query_len
    )
    return batch, metadata


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "served.json"


def test_rows_that_pad_a_graph_do_not_count_in_the_mean(path: Path) -> None:
    recorder = TrafficWriter(path, H200)
    recorder.add_step("graph", "hit", *step([4096] * 5 + [0] * 3))
    recorder.close()
    assert rows(path) == [("graph", "hit", 8, 1, 4096, 4096, 5)]


def test_the_mean_and_the_longest_of_a_ragged_batch_are_kept(path: Path) -> None:
    recorder = TrafficWriter(path, H200)
    recorder.add_step("graph", "hit", *step([1024] * 7 + [65536, 0, 0]))
    recorder.close()
    # The mean of the eight real requests is 9088.
    assert rows(path) == [("graph", "hit", 10, 1, 8192, 65536, 8)]


def test_an_eager_batch_counts_its_requests_alone(path: Path) -> None:
    recorder = TrafficWriter(path, H200)
    recorder.add_step("eager", "miss", *step([1024] * 3 + [0]))
    recorder.close()
    assert rows(path) == [("eager", "miss", 3, 1, 1024, 1024, 3)]


def test_an_eager_part_with_one_request_far_above_the_mean_is_skewed(path: Path) -> None:
    recorder = TrafficWriter(path, H200)
    recorder.add_step("eager", "miss", *step([1024, 1024, 1024, 8192]))
    # The decodes of this step are skewed, its prefill is not.
    recorder.add_step("eager", "skewed", *step([1024, 9000, 2048], decodes=2, prefill_tokens=256))
    recorder.close()
    assert {row[:6] for row in rows(path)} == {
        ("eager", "skewed", 4, 1, 2048, 8192),
        ("eager", "skewed", 2, 1, 4096, 8192),
        ("eager", "mixed", 1, 256, 2048, 2048),
    }


def test_a_skewed_step_that_the_model_of_a_table_answers_is_a_hit(path: Path) -> None:
    recorder = TrafficWriter(path, H200)
    recorder.add_step("eager", "hit", *step([1024, 1024, 1024, 8192]))
    recorder.close()
    assert rows(path) == [("eager", "hit", 4, 1, 2048, 8192, 4)]


@pytest.mark.parametrize(
    ("mode", "lens", "query_len"),
    [("graph", [4] * 8, 4), ("graph", [1] * 8, 1), ("eager", [1] * 8, 1), ("graph", [0] * 8, 1)],
)
def test_dummy_batches_are_not_counted(
    path: Path, mode: str, lens: list[int], query_len: int
) -> None:
    recorder = TrafficWriter(path, H200)
    recorder.add_step(mode, "hit", *step(lens, query_len=query_len))
    recorder.close()
    assert histogram_files(path) == []


def test_each_process_writes_a_file_of_its_own(path: Path) -> None:
    for _ in range(2):
        recorder = TrafficWriter(path, H200)
        recorder.add("graph", "hit", StepPart(8, 1, 8000, 1000, 8))
        recorder.close()
    assert len(histogram_files(path)) == 2
    assert len(list(path.parent.iterdir())) == 2


def test_nothing_served_writes_nothing_and_starts_no_thread(path: Path) -> None:
    threads = threading.active_count()
    recorder = TrafficWriter(path, H200)
    assert threading.active_count() == threads
    recorder.close()
    assert histogram_files(path) == []


def test_a_disk_that_is_gone_is_said_once_and_costs_nothing_when_it_comes_back(
    path: Path, messages: list[str]
) -> None:
    path = path.parent / "gone" / "served.json"
    recorder = TrafficWriter(path, H200)
    for _ in range(3):
        recorder.add("graph", "hit", StepPart(8, 1, 8192, 1024, 8))
        recorder.write()
    assert len(messages) == 1
    assert "cannot be written" in messages[0]
    path.parent.mkdir()
    recorder.write()
    recorder.close()
    (file,) = histogram_files(path)
    assert HistogramFile.load(file).steps[0].count == 3


def test_a_step_that_cannot_be_read_ends_the_record_alone(path: Path, messages: list[str]) -> None:
    recorder = TrafficWriter(path, H200)
    for _ in range(3):
        recorder.add_step("eager", "miss", SimpleNamespace(), None)
    assert len(messages) == 1
    assert "counting of served steps ends here" in messages[0]


def test_the_thread_writes_by_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "SECONDS_BETWEEN_WRITES", 0.01)
    recorder = TrafficWriter(path, H200)
    recorder.add("graph", "hit", StepPart(8, 1, 8192, 1024, 8))
    deadline = time.monotonic() + 30
    while not histogram_files(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert rows(path) == [("graph", "hit", 8, 1, 1024, 1024, 8)]
    recorder.close()


def test_counting_goes_on_while_a_disk_hangs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, goes_on = threading.Event(), threading.Event()

    def fsync(_handle: int) -> None:
        hangs.set()
        goes_on.wait(30)

    monkeypatch.setattr(writer_module.os, "fsync", fsync)
    recorder = TrafficWriter(path, H200)
    recorder.add("graph", "hit", StepPart(8, 1, 8192, 1024, 8))
    writer = threading.Thread(target=recorder.write)
    writer.start()
    assert hangs.wait(30)
    for _ in range(1000):
        # Waits for ever if it waits for the disk.
        recorder.add("graph", "hit", StepPart(8, 1, 8192, 1024, 8))
    goes_on.set()
    writer.join()
    recorder.close()
    (file,) = histogram_files(path)
    assert HistogramFile.load(file).steps[0].count == 1001


def test_no_step_is_lost_between_threads(path: Path) -> None:
    recorder = TrafficWriter(path, H200)
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            recorder.write()

    writer = threading.Thread(target=write)
    writer.start()
    for number in range(5000):
        recorder.add("graph", "hit", StepPart(1 + number % 50, 1, 50 * 1024, 1024, 1 + number % 50))
    ended.set()
    writer.join()
    recorder.close()
    (file,) = histogram_files(path)
    assert sum(step.count for step in HistogramFile.load(file).steps) == 5000


def test_a_file_stays_small_and_its_total_right(path: Path) -> None:
    recorder = TrafficWriter(path, H200)
    for number in range(MOST_KINDS + 100):
        recorder.add("graph", "hit", StepPart(1 + number, 1, (1 + number) * 1024, 1024, 1 + number))
    recorder.close()
    (file,) = histogram_files(path)
    record = HistogramFile.load(file)
    assert len(record.steps) == MOST_KINDS
    assert [(others.mode, others.count) for others in record.others] == [("graph", 100)]
    assert file.stat().st_size < 1 << 20


def serve_on(recorder: TrafficWriter) -> None:
    recorder.add("graph", "miss", StepPart(4, 1, 4096, 1024, 4))


def test_a_forked_process_records_for_itself_alone(path: Path) -> None:
    recorder = TrafficWriter(path, H200)
    recorder.add("graph", "hit", StepPart(8, 1, 8192, 1024, 8))
    recorder._counting.acquire()  # as if the writer held it at that moment
    child = multiprocessing.get_context("fork").Process(target=serve_on, args=(recorder,))
    child.start()
    recorder._counting.release()
    child.join(30)
    recorder.close()
    assert child.exitcode == 0
    files = histogram_files(path)
    steps = {file.name.split(".")[-3]: HistogramFile.load(file).steps for file in files}
    assert {int(process): step.outcome for process, (step,) in steps.items()} == {
        os.getpid(): "hit",
        child.pid: "miss",
    }


def test_a_planted_link_is_not_followed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the name of the file to come is known, and the folder is shared."""
    victim = path.parent / "victim"
    victim.write_text("kept")
    monkeypatch.setattr("time.time_ns", lambda: 7)
    recorder = TrafficWriter(path, H200)
    recorder.add("graph", "hit", StepPart(8, 1, 8192, 1024, 8))
    name = recorder._path
    assert name is not None
    for planted in (name, name.with_suffix(".tmp")):
        planted.symlink_to(victim)
    recorder.close()
    assert victim.read_text() == "kept"
    assert not name.is_symlink()
    assert json.loads(name.read_text())["format"] == 2
