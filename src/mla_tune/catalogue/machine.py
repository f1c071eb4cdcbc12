"""Which tables an engine on a machine would use, as far as that does not depend on the model."""

__all__ = ["Machine"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from mla_tune.device.driver import gpu_names
from mla_tune.environment import KERNEL_PACKAGES, installed_versions
from mla_tune.registry import BACKENDS
from mla_tune.table import Table, TableFile
from mla_tune.table.device_names import device_kind
from mla_tune.table.software import compared


@cache
def _digests(backend: str) -> Mapping[str, str]:
    return BACKENDS[backend].digests()


@dataclass(frozen=True)
class Machine:
    """A machine that engines run on.

    Attributes:
        gpus: names of its GPUs.
        vllm: its release; None where there is none.
        packages: versions of what kernels come with, by name; None where nobody has looked.
    """

    gpus: tuple[str, ...]
    vllm: str | None
    packages: Mapping[str, str] | None = field(default=None)

    @classmethod
    def here(cls, gpu: str | None = None, vllm: str | None = None) -> "Machine":
        """The machine at hand, or what is told of another: a GPU, or a release of vLLM."""
        import pynvml

        gpus = gpu_names(pynvml) if gpu is None else (gpu,)
        if vllm is not None:
            return cls(gpus, vllm)
        return cls(
            gpus, installed_versions("vllm").get("vllm"), installed_versions(*KERNEL_PACKAGES)
        )

    def why_not(self, table: Table | TableFile) -> list[str]:
        """Why no engine here uses a table; nothing where one of its model and settings does."""
        if not BACKENDS[table.header.backend].is_vllm:
            return [f"{table.header.backend} is none of vLLM's backends"]
        return [*self._other_gpu(table), *self._other_software(table)]

    def _other_gpu(self, table: Table | TableFile) -> list[str]:
        name = table.header.device.name
        if device_kind(name) in map(device_kind, self.gpus):
            return []
        return [f"is for {name}, here is {', '.join(self.gpus) or 'no GPU'}"]

    def _other_software(self, table: Table | TableFile) -> list[str]:
        if self.vllm is None:
            return ["vLLM is not installed here"]
        looked_at = self.packages is not None
        installed = {"vllm": self.vllm, **(self.packages or {})}
        digests = _digests(table.header.backend) if looked_at else {}
        measured, found = compared(table, installed, digests)
        told = []
        for name, was in measured.items():
            if found[name] == was or not (looked_at or name == "vLLM release"):
                continue
            if name.endswith(" release"):
                told.append(f"is for {name.removesuffix(' release')} {was}, here is {found[name]}")
            else:
                told.append(f"{name} differs from what was measured")
        return told
