"""Run in a process of its own: Triton's real launches over a device that is not there, as JSON.

Triton compiles for capability 9.0. In the place of the driver stands one that loads nothing and
says of a kernel what the CUDA toolkit's ``cuobjdump`` says of its binary.
"""

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
import triton
import triton.language as tl
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from mla_tune.vllm.triton_launch import TunedKernel, resources_of

SIZE = 1024
MOST_SHARED_BYTES = 232_448


@triton.jit
def summed(source, to, kv_group_num, q_head_num, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr):  # noqa: N803
    rows = tl.arange(0, BLOCK_N)
    columns = tl.arange(0, BLOCK_H)
    tile = tl.load(source + rows[:, None] * BLOCK_H + columns[None, :])
    product = tl.dot(tile, tl.trans(tile))
    tl.store(to + rows[:, None] * BLOCK_N + rows[None, :], product * kv_group_num * q_head_num)


class Device:
    """What Triton asks of a device before and while it launches."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, _device):
        return 0

    @property
    def utils(self):
        return self

    def get_device_properties(self, _device):
        return {"max_shared_mem": MOST_SHARED_BYTES}

    def launcher_cls(self, *_):
        return lambda *_args: None

    def load_binary(self, _name, binary, _shared, _device):
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(binary)
            file.flush()
            tool = Path(knobs.nvidia.cuobjdump.path)
            said = subprocess.run(
                [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
            ).stdout
        used = {name: int(count) for name, count in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
        return 1, 1, used["REG"], (used["STACK"] + used["LOCAL"]) // 4, 1024

    def unload_module(self, _module):
        pass


def main() -> None:
    driver.set_active(Device())
    values = torch.zeros(SIZE * 16, dtype=torch.bfloat16)
    tuned = TunedKernel(summed)
    constants = {"BLOCK_N": 128, "BLOCK_H": 64, "num_warps": 4, "num_stages": 2}
    with tuned.resources() as plain:
        returned = tuned[1, 1, 1](values, values, 20, 20, **constants)
    with tuned.resources() as squeezed:
        tuned[1, 1, 1](values, values, 20, 20, **constants, maxnreg=96)
    unloaded = summed.warmup(values, values, 16, 16, grid=(1,), **constants)
    report = {
        "plain": [vars(each) for each in plain],
        "squeezed": [vars(each) for each in squeezed],
        "shared": returned.metadata.shared,
        "unloaded": resources_of(unloaded),
    }
    print("REPORT" + json.dumps(report))


main()
