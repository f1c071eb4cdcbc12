"""An engine on paper: vLLM's configuration of a GPU's engine, on a machine that has no GPU."""

__all__ = ["configure_on_paper"]

import os
from typing import Any

from mla_tune.vllm import compat

MEMORY_BYTES = 80 * 2**30  # from 70 GiB on a server's default of max_num_seqs is 1024
MOST_GPUS = 1024


def configure_on_paper() -> None:
    """Have vLLM take this process for one with GPUs of compute capability 9.0, if it sees none.

    Without any device vLLM configures nothing; on a CPU it captures no graphs. It looks at models
    in processes of its own, which the variable puts on the CPU: a GPU's modules do not import here.
    """
    platforms = compat.module("vllm.platforms")
    if not platforms.current_platform.is_unspecified():
        return
    os.environ["VLLM_TARGET_DEVICE"] = "cpu"
    platforms._current_platform = _platform()()


def _platform() -> type:
    cpu: Any = compat.symbol("vllm.platforms.cpu", "CpuPlatform")
    capability = compat.symbol("vllm.platforms.interface", "DeviceCapability")(9, 0)

    class GpuOnPaper(cpu):  # type: ignore[misc]  # vLLM has no types here
        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> object:
            del device_id
            return capability

        @classmethod
        def get_device_total_memory(cls, device_id: int = 0) -> int:
            del device_id
            return MEMORY_BYTES

        @classmethod
        def device_count(cls) -> int:
            return MOST_GPUS

        def is_cpu(self) -> bool:
            return False

        def is_cuda_alike(self) -> bool:
            return True

        @classmethod
        def support_static_graph_mode(cls) -> bool:
            return True

        @classmethod
        def check_and_update_config(cls, vllm_config: object) -> None:
            """A CPU's turns graphs off."""

    return GpuOnPaper
