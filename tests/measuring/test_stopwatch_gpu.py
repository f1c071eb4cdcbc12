"""Captured graphs on a real GPU: what they hold, and what one that fails leaves to the others."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import pytest

torch = pytest.importorskip("torch")

from mla_tune.measuring.capture import CaptureLost  # noqa: E402
from mla_tune.measuring.stopwatch import stopwatch_for  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

MIB = 2**20
VISIBLE = os.environ.get("CUDA_VISIBLE_DEVICES")
"""Before the tests of the plugin hide the GPU from processes that are started later."""


class Prepared:
    """A plan whose passes fill ``num_bytes`` of memory that they allocate and give back."""

    def __init__(self, num_bytes, *, captured_bytes=0, waits=False):
        self._num_bytes = num_bytes
        self._captured_bytes = captured_bytes or num_bytes
        self._waits = waits

    @contextmanager
    def applied(self):
        yield self.run

    def run(self):
        is_captured = torch.cuda.is_current_stream_capturing()
        num_bytes = self._captured_bytes if is_captured else self._num_bytes
        filled = torch.ones(num_bytes, dtype=torch.int8, device="cuda")
        if self._waits and is_captured:
            filled[0].item()


@pytest.fixture
def stopwatch():
    return stopwatch_for(torch.device("cuda"), "graph")


@pytest.fixture
def limited(stopwatch):
    """Half a GiB more than this process holds, and no more."""
    assert stopwatch is not None  # which holds what it needs
    total = torch.cuda.get_device_properties(0).total_memory
    held = torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction((held + 512 * MIB) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_pass_that_takes_longer_has_a_longer_latency(stopwatch):
    short, long = (stopwatch.sampler(Prepared(size * MIB)) for size in (16, 1024))
    assert 0 < min(short() for _ in range(5)) < min(long() for _ in range(5))


def test_graphs_share_memory(stopwatch):
    kept = [stopwatch.sampler(Prepared(256 * MIB)) for _ in range(2)]
    before = torch.cuda.memory_reserved()
    kept += [stopwatch.sampler(Prepared(256 * MIB)) for _ in range(8)]
    assert torch.cuda.memory_reserved() == before
    assert all(sample() > 0 for sample in kept)


def capture_what_cannot_be():
    """Raises `CaptureLost`: for a process of its own, since nothing else can be captured in it."""
    stopwatch = stopwatch_for(torch.device("cuda"), "graph")
    kept = stopwatch.sampler(Prepared(MIB))
    try:
        stopwatch.sampler(Prepared(MIB, waits=True))
    finally:
        assert kept() > 0


def test_one_that_cannot_be_captured_says_that_its_process_is_done(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if VISIBLE is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", VISIBLE)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool, pytest.raises(CaptureLost):
        pool.submit(capture_what_cannot_be).result()


@pytest.mark.usefixtures("limited")
def test_what_warm_up_passes_held_is_there_for_a_graph_where_memory_is_short(stopwatch):
    assert stopwatch.sampler(Prepared(300 * MIB))() > 0


@pytest.mark.usefixtures("limited")
def test_a_graph_that_finds_no_memory_is_refused_and_the_next_is_not(stopwatch):
    with pytest.raises(torch.OutOfMemoryError):
        stopwatch.sampler(Prepared(MIB, captured_bytes=600 * MIB))
    assert stopwatch.sampler(Prepared(100 * MIB))() > 0


def test_the_next_stopwatch_finds_what_the_last_gave_back():
    stopwatch = stopwatch_for(torch.device("cuda"), "graph")
    held = torch.cuda.memory_reserved()
    sample = stopwatch.sampler(Prepared(512 * MIB))
    assert torch.cuda.memory_reserved() >= held + 512 * MIB
    del sample, stopwatch
    assert stopwatch_for(torch.device("cuda"), "graph") is not None
    assert torch.cuda.memory_reserved() <= held
