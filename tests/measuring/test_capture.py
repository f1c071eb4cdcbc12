import pytest

from mla_tune.measuring.capture import CaptureLost, end_capture


class Graph:
    """A capture whose end raises, or not."""

    def __init__(self, problem=None):
        self.ended = False
        self._problem = problem

    def capture_end(self):
        self.ended = True
        if self._problem is not None:
            raise self._problem


def captured(graph, problem=None):
    try:
        if problem is not None:
            raise problem
    finally:
        end_capture(graph)


def test_a_capture_that_ends_is_no_problem():
    graph = Graph()
    captured(graph)
    assert graph.ended


def test_a_pass_that_raises_raises_what_it_did_when_its_capture_ends():
    graph = Graph()
    with pytest.raises(MemoryError, match="no room"):
        captured(graph, MemoryError("no room"))
    assert graph.ended


def test_a_capture_without_an_end_is_lost_and_says_what_the_pass_raised():
    graph = Graph(RuntimeError("failed due to a previous error during capture"))
    with pytest.raises(CaptureLost, match=r"^stream is capturing$"):
        captured(graph, RuntimeError("stream is capturing"))


def test_where_the_pass_raised_nothing_the_end_says_why():
    graph = Graph(RuntimeError("the capture was invalidated"))
    with pytest.raises(CaptureLost, match=r"^the capture was invalidated$"):
        captured(graph)
