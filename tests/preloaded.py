"""Workers that are forked from a process which has imported torch, most of what a start takes."""

import multiprocessing
from multiprocessing import forkserver

PRELOADED = ["mla_tune.measuring.worker_main", "mla_tune.torch_mla.attention"]


class PreloadedContext:
    """Stands in for the context by which `mla_tune.measuring.worker_process` starts a worker.

    A worker ends with its parent, which is here the process that it is forked from; that one
    ends with the tests.
    """

    def __init__(self):
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self.Pipe = self._context.Pipe

    def Process(self, target, args, daemon):  # noqa: N802
        forkserver.ensure_running()
        parent = forkserver._forkserver._forkserver_pid
        return self._context.Process(target=target, args=(*args[:-1], parent), daemon=daemon)
