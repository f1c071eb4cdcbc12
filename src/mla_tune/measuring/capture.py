"""The end of a CUDA graph's capture, which not every pass lets come."""

__all__ = ["CaptureLost", "end_capture"]

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class CaptureLost(RuntimeError):
    """A pass did what no capture allows, and torch cannot get out of the capture.

    Its allocator takes it to be underway until the process ends (``captures_underway``): it gives
    no memory back, and refuses the pool to all graphs that follow.
    """


def end_capture(graph: "torch.cuda.CUDAGraph") -> None:
    """End the capture of ``graph``, also where an exception leads out of it.

    Raises:
        CaptureLost: it has no end. It tells what the pass raised, where that is why.
    """
    try:
        graph.capture_end()
    except RuntimeError as error:
        raise CaptureLost(str(error.__context__ or error)) from error
