"""Capturing a CUDA graph, which not every pass lets come to an end."""

__all__ = ["CaptureLost", "capturing"]

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class CaptureLost(RuntimeError):
    """A capture that torch cannot get out of, most often since a pass did what none allows.

    Its allocator takes it to be underway until the process ends (``captures_underway``): it gives
    no memory back, and refuses the pool to all graphs that follow.
    """


@contextmanager
def capturing(graph: "torch.cuda.CUDAGraph", pool: Any) -> Iterator[None]:
    """Capture what runs within, on the current stream, as ``graph``, with memory of ``pool``.

    ``torch.cuda.graph`` would empty the allocator's cache before, so that what comes after asks the
    driver for memory: about a tenth of what a size takes (docs/fleet.md).

    Raises:
        CaptureLost: the capture has no end. It tells what was raised within, where that is why.
    """
    try:
        graph.capture_begin(pool=pool)
    except RuntimeError as error:  # the allocator has begun before the stream does
        raise CaptureLost(str(error)) from error
    try:
        yield
    finally:
        _end(graph)


def _end(graph: "torch.cuda.CUDAGraph") -> None:
    try:
        graph.capture_end()
    except RuntimeError as error:
        if _has_ended(graph):  # and found no memory for what it is to be replayed from
            raise
        within = error.__context__
        if within is None or isinstance(within, Exception):
            raise CaptureLost(str(within or error)) from error
        # An interrupt goes on as one, since the process ends with it.


def _has_ended(graph: "torch.cuda.CUDAGraph") -> bool:
    try:
        graph.pool()
    except RuntimeError:  # "without a preceding successful capture"
        return False
    return True
