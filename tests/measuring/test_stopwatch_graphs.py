"""What is captured, and what becomes of a plan that cannot be, on a made-up allocator."""

from contextlib import contextmanager

import pytest
import torch

from fake_cuda import FakeCuda
from mla_tune.measuring.capture import CaptureLost
from mla_tune.measuring.stopwatch import GraphReplay

OUT_OF_MEMORY = RuntimeError("CUDA error: out of memory")


class Prepared:
    """A plan whose passes take ``num_bytes``, and raise ``problem`` where they are captured."""

    def __init__(self, cuda, num_bytes=10, problem=None):
        self._cuda = cuda
        self._num_bytes = num_bytes
        self._problem = problem

    @contextmanager
    def applied(self):
        yield self.run

    def run(self):
        self._cuda.pass_of(self._num_bytes)
        if self._cuda.underway and self._problem is not None:
            raise self._problem


@pytest.fixture
def cuda(monkeypatch):
    cuda = FakeCuda(100)
    cuda.patch(monkeypatch)
    return cuda


@pytest.fixture
def stopwatch(cuda):
    assert cuda.times_emptied == 0
    return GraphReplay(torch.device("cpu"))


def test_plans_are_captured_on_one_stream_without_emptying_the_cache_for_each(cuda, stopwatch):
    before = cuda.times_emptied
    samples = [stopwatch.sampler(Prepared(cuda)) for _ in range(5)]
    assert [sample() for sample in samples] == [250.0] * 5
    assert (cuda.times_emptied - before, cuda.streams) == (0, 1)


def test_what_warm_up_passes_held_is_there_for_a_graph_where_memory_is_short(cuda, stopwatch):
    assert stopwatch.sampler(Prepared(cuda, 60))() == 250.0
    assert cuda.times_emptied == 2


def test_a_graph_that_is_made_replayable_finds_room_as_well(cuda, stopwatch):
    cuda.instantiates = OUT_OF_MEMORY
    assert stopwatch.sampler(Prepared(cuda))() == 250.0
    assert cuda.times_emptied == 2


def test_one_without_room_is_refused_and_the_first_of_a_pool_too(cuda, stopwatch):
    with pytest.raises(torch.OutOfMemoryError):
        stopwatch.sampler(Prepared(cuda, 101))
    cuda.pass_of(30)
    with pytest.raises(torch.OutOfMemoryError):
        stopwatch.sampler(Prepared(cuda, 90, torch.OutOfMemoryError("CUDA out of memory.")))
    cuda.free = 100
    assert stopwatch.sampler(Prepared(cuda))() == 250.0


@pytest.mark.parametrize("step", ["begins", "ends"])
def test_a_capture_without_an_end_is_not_tried_again(cuda, stopwatch, step):
    setattr(cuda, step, OUT_OF_MEMORY)
    with pytest.raises(CaptureLost, match="out of memory"):
        stopwatch.sampler(Prepared(cuda))
    with pytest.raises(CaptureLost, match="already recording"):
        stopwatch.sampler(Prepared(cuda))


def test_what_a_pass_raises_is_what_the_plan_fails_of(cuda, stopwatch):
    with pytest.raises(ValueError, match="no such kernel"):
        stopwatch.sampler(Prepared(cuda, problem=ValueError("no such kernel")))
    assert stopwatch.sampler(Prepared(cuda))() == 250.0


def test_a_pool_is_gone_with_its_stopwatch_and_not_with_the_last_plan(cuda):
    stopwatch = GraphReplay(torch.device("cpu"))
    assert stopwatch.sampler(Prepared(cuda))() == 250.0
    assert list(cuda.users.values()) == [1]
    del stopwatch
    assert list(cuda.users.values()) == [0]
