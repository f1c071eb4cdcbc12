import pytest

from fake_cuda import FakeCuda
from mla_tune.measuring.capture import CaptureLost, capturing

POOL = 1


def captured(graph, problem=None):
    with capturing(graph, POOL):
        if problem is not None:
            raise problem


def graph_that(**steps):
    cuda = FakeCuda(100)
    vars(cuda).update(steps)
    return cuda.new_graph()


def test_a_capture_that_ends_is_no_problem():
    graph = graph_that()
    captured(graph)
    assert graph.pool() == POOL


def test_a_pass_that_raises_raises_what_it_did_when_its_capture_ends():
    graph = graph_that()
    with pytest.raises(MemoryError, match="no room"):
        captured(graph, MemoryError("no room"))
    assert graph.pool() == POOL


def test_a_capture_without_an_end_is_lost_and_says_what_the_pass_raised():
    graph = graph_that(ends=RuntimeError("failed due to a previous error during capture"))
    with pytest.raises(CaptureLost, match=r"^stream is capturing$"):
        captured(graph, RuntimeError("stream is capturing"))


def test_where_the_pass_raised_nothing_the_end_says_why():
    with pytest.raises(CaptureLost, match=r"^the capture was invalidated$"):
        captured(graph_that(ends=RuntimeError("the capture was invalidated")))


def test_one_that_does_not_begin_is_lost_as_well():
    with pytest.raises(CaptureLost, match="already recording"):
        captured(graph_that(begins=RuntimeError("already recording to mempool_id")))


def test_a_graph_that_finds_no_memory_has_lost_nothing():
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        captured(graph_that(instantiates=RuntimeError("CUDA error: out of memory")))
    assert not isinstance(caught.value, CaptureLost)


def test_an_interrupt_within_stays_one():
    with pytest.raises(KeyboardInterrupt):
        captured(graph_that(ends=RuntimeError("the capture was invalidated")), KeyboardInterrupt())
