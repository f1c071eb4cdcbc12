"""The fingerprint a measurement is true for: the device, and the software that drives it."""

__all__ = ["KERNEL_PACKAGES", "Environment", "described", "installed_versions", "probe"]

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

# What kernels come with beside vLLM's own wheel, by the names of the package index.
KERNEL_PACKAGES = ("triton", "flashinfer-python")

# The compiled kernels behind vLLM's MLA backends: a rebuilt one changes what was measured even
# when no version number moved.
KERNEL_BINARIES = ("_C", "_flashmla_C", "_flashmla_extension_C", "_vllm_fa2_C", "_vllm_fa3_C")


@dataclass(frozen=True)
class Environment:
    """One device and its software, as plain data that crosses processes and fills tables.

    Attributes:
        device_name: the GPU's name as its driver gives it, or the processor's.
        compute_capability: such as ``9.0``; None on a CPU.
        sm_count: streaming multiprocessors; on a CPU the threads torch uses.
        memory_gib: device memory in all.
        software: versions by name (torch, triton, vllm, cuda or hip, driver), only what is there.
        kernels: digest of each compiled kernel library of vLLM, by file name.
        locked_sm_clock_mhz: where the GPU's SM clock is locked; None: nowhere below its maximum.
        unwatched: what the driver does not say of this GPU and why; None: it says all.
        digests: of the parts of the software that decide how fast a backend of vLLM is, by name;
            see `mla_tune.vllm.digests`. Empty where they were not looked at.
    """

    device_name: str
    compute_capability: str | None
    sm_count: int
    memory_gib: float
    software: dict[str, str]
    kernels: dict[str, str]
    locked_sm_clock_mhz: int | None = None
    unwatched: str | None = None
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def is_hip(self) -> bool:
        """Whether this is an AMD GPU, which PyTorch names cuda too."""
        return "hip" in self.software

    @property
    def is_cuda(self) -> bool:
        return self.compute_capability is not None and not self.is_hip

    @property
    def capability(self) -> tuple[int, int]:
        """(major, minor), or (0, 0) where there is no CUDA GPU.

        PyTorch gives an MI300X the capability 9.4, which is no Hopper's.
        """
        major, _, minor = ((self.is_cuda and self.compute_capability) or "0.0").partition(".")
        return int(major), int(minor)

    @cached_property
    def software_digest(self) -> str:
        """Changes when anything that could change a kernel's behaviour does."""
        facts = sorted({**self.software, **self.kernels, **self.digests}.items())
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def probe(device: str) -> Environment:
    """Look at ``device`` (``cpu`` or ``cuda[:N]``) and the installed software.

    Raises:
        RuntimeError: from torch, when the device is not there.
    """
    found = described(device)
    if not device.startswith("cuda"):
        return found
    driver = _driver_version()
    software = found.software | ({"driver": driver} if driver else {})
    return replace(found, software=software, kernels=_kernel_digests())


def described(device: str) -> Environment:
    """`probe` without what takes time: the driver's version and the digests of the kernels.

    Those digests read hundreds of megabytes.
    """
    import torch

    software = installed_versions("torch", "triton", "vllm", "flashinfer-python")
    if not device.startswith("cuda"):
        return Environment(
            device_name=_processor_name(),
            compute_capability=None,
            sm_count=torch.get_num_threads(),
            memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            software=software,
            kernels={},
        )
    properties = torch.cuda.get_device_properties(torch.device(device))
    return Environment(
        device_name=properties.name,
        compute_capability=f"{properties.major}.{properties.minor}",
        sm_count=properties.multi_processor_count,
        memory_gib=round(properties.total_memory / 2**30, 1),
        software=software | _gpu_platform(),
        kernels={},
    )


def _gpu_platform() -> dict[str, str]:
    """The version of what this build of PyTorch runs GPUs with: ``cuda``, or ``hip`` on AMD's."""
    import torch

    found = {"cuda": torch.version.cuda, "hip": torch.version.hip}
    return {name: version for name, version in found.items() if version}


def installed_versions(*packages: str) -> dict[str, str]:
    """The versions of those of ``packages`` that are installed, as a table's header names them."""
    found = {}
    for package in packages:
        try:
            found[package.removesuffix("-python")] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _driver_version() -> str | None:
    import pynvml

    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


def _kernel_digests() -> dict[str, str]:
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return {}
    digests = {}
    for path in sorted(Path(spec.origin).parent.rglob("*.so")):
        if path.name.split(".")[0] in KERNEL_BINARIES:
            with path.open("rb") as file:
                digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    return digests
