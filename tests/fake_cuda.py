"""What `GraphReplay` asks of torch.cuda, on a CPU: an allocator that caches, pools and captures."""

from contextlib import contextmanager
from unittest.mock import Mock

import torch


class FakeCuda:
    """Memory in bytes. As torch's allocator it gives back what it caches when told to, outside of
    captures, and takes a capture that has no end to be underway for ever.

    Args:
        num_bytes: of the device.
    """

    def __init__(self, num_bytes):
        self.free = num_bytes
        self.cached = 0
        self.times_emptied = 0
        self.underway = []
        self.users = {}
        self.streams = 0
        self.begins = self.ends = self.instantiates = None

    def pass_of(self, num_bytes):
        """A pass takes so much: a graph for as long as its pool lives, others of the cache."""
        if self.underway:
            self._take(num_bytes)
        elif num_bytes > self.cached:
            self._take(num_bytes - self.cached)
            self.cached = num_bytes

    def _take(self, num_bytes):
        if num_bytes > self.free:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        self.free -= num_bytes

    def empty_cache(self):
        self.times_emptied += 1
        if not self.underway:
            self.free, self.cached = self.free + self.cached, 0

    def graph_pool_handle(self):
        return len(self.users) + 1

    def new_stream(self, _device):
        self.streams += 1
        return Mock()

    @contextmanager
    def on_stream(self, _stream):
        yield

    def new_graph(self):
        return FakeGraph(self)

    def patch(self, monkeypatch):
        """Put this in the place of torch.cuda; all events are a quarter of a millisecond apart."""
        event = Mock(query=Mock(return_value=False), elapsed_time=Mock(return_value=0.25))
        for name, value in {
            "get_device_properties": Mock(return_value=Mock(L2_cache_size=4)),
            "Event": Mock(return_value=event),
            "Stream": self.new_stream,
            "CUDAGraph": self.new_graph,
            "stream": self.on_stream,
            "current_stream": Mock(),
            "graph_pool_handle": self.graph_pool_handle,
            "empty_cache": self.empty_cache,
            "synchronize": Mock(),
            "_sleep": Mock(),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value, raising=False)


class FakeGraph:
    """A graph; its device says once if it does not begin, end, or come to be replayed."""

    def __init__(self, cuda):
        self.replays = 0
        self._cuda = cuda
        self._pool = None
        self._has_ended = False

    def capture_begin(self, pool):
        if pool in self._cuda.underway:
            raise RuntimeError("beginAllocateToPool: already recording to mempool_id")
        assert self._cuda.users.get(pool) != 0, "a pool is gone with its last graph"
        self._cuda.underway.append(pool)
        self._pool = pool
        self._cuda.users[pool] = self._cuda.users.get(pool, 0) + 1
        self._raise("begins")

    def capture_end(self):
        self._raise("ends")
        self._cuda.underway.remove(self._pool)
        self._has_ended = True
        self._raise("instantiates")

    def pool(self):
        if not self._has_ended:
            raise RuntimeError("Called CUDAGraph::pool() without a preceding successful capture.")
        return self._pool

    def replay(self):
        assert not self._cuda.underway
        self.replays += 1

    def _raise(self, step):
        problem = getattr(self._cuda, step)
        if problem is not None:
            setattr(self._cuda, step, None)
            raise problem

    def __del__(self):
        if self._pool is not None:
            self._cuda.users[self._pool] -= 1
