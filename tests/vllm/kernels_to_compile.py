"""A kernel for Triton, and what stands for kernels that take the compiler along."""

import os
import signal
import time

import triton
import triton.language as tl


@triton.jit
def twice(source, to, count, stride, size: tl.constexpr):
    rows = tl.program_id(0) * size + tl.arange(0, size)
    tl.store(to + rows * stride, tl.load(source + rows, mask=rows < count) * 2, mask=rows < count)


class Hangs:
    @staticmethod
    def warmup(*_args, **_kwargs):
        time.sleep(600)


class Dies:
    @staticmethod
    def warmup(*_args, **_kwargs):
        os.kill(os.getpid(), signal.SIGSEGV)


hangs, dies = Hangs, Dies
