"""Stopwatches: one sample of one prepared plan, in microseconds.

On CUDA devices a sample is taken with events: a CUDA-graph replay in graph mode, one eager pass
otherwise. Before each sample the L2 cache is flushed by overwriting a buffer of twice its size,
since in serving every layer finds it filled with other layers' data; the flush, and for eager
passes a spin on the device, also give the host time to queue the work, so that launch latency
stays out of the figure. On a CPU a sample is the monotonic clock around enough passes to fill
two milliseconds, with warm caches.
"""

__all__ = ["Sampler", "Samples", "Stopwatch", "stopwatch_for"]

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mla_tune.measuring.capture import CaptureLost, capturing
from mla_tune.measuring.load import OthersLoad
from mla_tune.plan.kernel_resources import KernelResources
from mla_tune.session import Prepared

if TYPE_CHECKING:
    import torch

Sampler = Callable[[], float]
"""Takes one sample: the latency in microseconds."""


@dataclass(frozen=True)
class Samples:
    """Timed rounds of one plan.

    ``rounds[i][j]`` is the latency in microseconds of case j in round i, or NaN where that round
    left the case out. ``throttled`` counts
    rounds that were thrown away because the device was slowed down while they ran; ``tainted``
    says why some were kept all the same, when it would not recover. ``others`` is what other
    processes did to the device meanwhile. ``resources`` is what the decode kernel takes, the most
    of all cases, where that is known.
    """

    rounds: tuple[tuple[float, ...], ...]
    throttled: int = 0
    tainted: str = ""
    others: OthersLoad | None = None
    resources: KernelResources | None = None

    def of_case(self, number: int) -> tuple[float, ...]:
        """The latencies of one case, of the rounds that sampled it."""
        return tuple(cases[number] for cases in self.rounds if not math.isnan(cases[number]))

    def __add__(self, other: "Samples") -> "Samples":
        return Samples(
            self.rounds + other.rounds,
            self.throttled + other.throttled,
            self.tainted or other.tainted,
            self.others.with_more(other.others) if self.others else other.others,
            self.resources or other.resources,
        )


class Stopwatch(Protocol):
    """A way of timing."""

    def sampler(self, prepared: Prepared) -> Sampler:
        """Warm ``prepared`` up (compile, capture) and return what takes samples of it."""
        ...


def stopwatch_for(device: "torch.device", mode: str) -> Stopwatch:
    """The stopwatch for a device and an engine mode (``eager`` or ``graph``)."""
    if device.type == "cpu":
        return CpuClock()
    return GraphReplay(device) if mode == "graph" else EagerEvents(device)


class CpuClock:
    """Monotonic clock; short passes are repeated so that one sample lasts a while."""

    SAMPLE_NS = 2_000_000

    def sampler(self, prepared: Prepared) -> Sampler:
        with prepared.applied() as run:
            run()
            started = time.perf_counter_ns()
            run()
            pass_ns = time.perf_counter_ns() - started
        passes = max(1, self.SAMPLE_NS // max(pass_ns, 1))

        def sample() -> float:
            with prepared.applied() as run:
                started = time.perf_counter_ns()
                for _ in range(passes):
                    run()
                return (time.perf_counter_ns() - started) / passes / 1000

        return sample


class _Events:
    """A pair of CUDA events around a call, behind a flush of the L2 cache and a spin.

    The device must still be busy with flush and spin when the host has queued the whole call: then
    the events hold kernel time and no launch latency. Where it was not (the host was held up),
    the sample is taken again behind a longer spin.
    """

    CYCLES_PER_US = 2000  # above any current SM clock in MHz: the spin never ends too early
    LONGEST_SPIN_US = 5000.0
    RETRIES = 4

    def __init__(self, device: "torch.device") -> None:
        import torch

        l2_bytes = torch.cuda.get_device_properties(device).L2_cache_size
        self._overwritten = torch.empty(2 * l2_bytes, dtype=torch.int8, device=device)
        self._start = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)

    def sampler(self, run: Callable[[], None], launch_us: float) -> Sampler:
        """Return what times ``run``, whose launches took the host ``launch_us``."""
        spin_us = 2 * launch_us + 50

        def sample() -> float:
            nonlocal spin_us
            for _ in range(self.RETRIES):
                latency_us, hidden = self._timed(run, spin_us)
                # A call that waits for the device inside can hide nothing: take what it gives.
                if hidden or spin_us >= self.LONGEST_SPIN_US:
                    break
                spin_us = min(2 * spin_us, self.LONGEST_SPIN_US)
            return latency_us

        return sample

    def flush(self) -> None:
        """Leave nothing of the passes before in the L2 cache."""
        self._overwritten.zero_()

    def _timed(self, run: Callable[[], None], spin_us: float) -> tuple[float, bool]:
        """Microseconds between the events, and whether all launches were queued ahead."""
        import torch

        self.flush()
        torch.cuda._sleep(int(spin_us * self.CYCLES_PER_US))
        self._start.record()
        run()
        self._end.record()
        hidden = not self._start.query()
        self._end.synchronize()
        return float(self._start.elapsed_time(self._end) * 1000), hidden


class EagerEvents:
    """One eager pass between events."""

    def __init__(self, device: "torch.device") -> None:
        self._events = _Events(device)

    def sampler(self, prepared: Prepared) -> Sampler:
        import torch

        with prepared.applied() as run:
            run()
            torch.cuda.synchronize()
            started = time.perf_counter_ns()
            run()
            launch_us = (time.perf_counter_ns() - started) / 1000
            torch.cuda.synchronize()
            timed = self._events.sampler(run, launch_us)

        def sample() -> float:
            with prepared.applied():
                return timed()

        return sample


class GraphReplay:
    """One replay of a captured CUDA graph between events.

    All graphs share one pool of memory and one stream, as vLLM's do: they are replayed one after
    another, and each writes what it reads. With a pool each, hundreds of plans would fill the GPU.
    What the pool has grown to is given back with the stopwatch: take a new one for other batches.
    """

    WARM_UP_PASSES = 3
    LAUNCH_US = 20.0

    def __init__(self, device: "torch.device") -> None:
        import torch

        torch.cuda.empty_cache()  # of the pool before, whose graphs are gone
        self._events = _Events(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)
        # A pool is gone with its last graph: one that stays lets plans fail before any is captured.
        self._first = self._captured(self._events.flush)

    def sampler(self, prepared: Prepared) -> Sampler:
        """As `Stopwatch.sampler`.

        Raises:
            CaptureLost: nothing can be captured in this process any more.
        """
        import torch

        with prepared.applied() as run:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(self.WARM_UP_PASSES):
                    run()
            torch.cuda.current_stream().wait_stream(self._stream)
            torch.cuda.synchronize()
            graph = self._captured_in_room(run)
        return self._events.sampler(graph.replay, self.LAUNCH_US)

    def _captured_in_room(self, run: Callable[[], None]) -> "torch.cuda.CUDAGraph":
        """As `_captured`; where memory is short, without what the warm-up passes held.

        torch keeps that for passes outside of graphs, and gives nothing back during a capture.
        """
        import torch

        try:
            return self._captured(run)
        except RuntimeError as error:  # torch's own, or the driver's for the graph itself
            if isinstance(error, CaptureLost) or "out of memory" not in str(error):
                raise
        torch.cuda.empty_cache()
        return self._captured(run)

    def _captured(self, run: Callable[[], None]) -> "torch.cuda.CUDAGraph":
        """The graph of one pass, replayed once."""
        import torch

        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream), capturing(graph, self._pool):
            run()
        graph.replay()
        torch.cuda.synchronize()
        return graph
