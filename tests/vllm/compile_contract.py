"""Run in a process of its own, with Triton as it compiles: what is compiled ahead, as JSON."""

import json
import os

# Without a GPU, and without the interpreter that other tests use.
os.environ.pop("TRITON_INTERPRET", None)
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import kernels_to_compile as module
import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from mla_tune.vllm.triton_compile import KernelCall, _Driver, recorded
from mla_tune.vllm.triton_compiler import CompilerProcess

HOPPER = GPUTarget("cuda", 90, 32)
STRIDES = (1, 16, 17, 32, 18)


class Launched:
    """In the place of a launch on a GPU: all that Triton does of it before it loads the kernel."""

    def __getitem__(self, grid):
        def launch(*args, **kwargs):
            return module.twice.run(*args, grid=grid, warmup=True, **kwargs)

        return launch


def launches(kernel):
    values = torch.zeros(64, dtype=torch.bfloat16)
    for stride in STRIDES:
        kernel[1,](values, values[1:], 64, stride, size=32, num_warps=2)


def main() -> None:
    with recorded(module) as calls:
        launches(module.twice)
    every = tuple(dict.fromkeys(calls))
    hangs, dies = (KernelCall(module.__name__, name, (), ()) for name in ("hangs", "dies"))
    wrong = KernelCall(module.__name__, "twice", every[0].arguments, (("size", 33),))
    ticks: list[None] = []
    process = CompilerProcess(module.__name__)
    first = process.compile((hangs,), HOPPER, 2.0, lambda: ticks.append(None))
    first |= process.compile((dies, wrong), HOPPER, 120.0, lambda: None)
    second = process.compile(every, HOPPER, 120.0, lambda: None)
    third = process.compile(every, HOPPER, 120.0, lambda: None)
    process.close()
    hits: list[bool] = []
    driver.set_active(_Driver(HOPPER))
    knobs.compilation.listener = lambda **told: hits.append(told["cache_hit"])
    launches(Launched())
    found = {
        "calls": len(calls),
        "strides": [call.arguments[3] for call in every],
        "hung": first[hangs],
        "died": first[dies],
        "wrong": first[wrong],
        "ticks": len(ticks),
        "second": [outcome for outcome, _ in second.values()],
        "third": [outcome for outcome, _ in third.values()],
        "hits": hits,
        "after its end": len(process.compile(every, HOPPER, 1.0, lambda: None)),
    }
    print(json.dumps(found))


main()
