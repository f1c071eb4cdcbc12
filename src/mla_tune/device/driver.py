"""One GPU as its driver sees it, through NVML."""

__all__ = ["Clocks", "GpuDriver", "NotAskable", "driver_of", "gpu_names"]

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class NotAskable(Exception):
    """NVML does not answer for this GPU; the text is its reason.

    Seen under gVisor and on vGPUs; a MIG slice has no handle of its own.
    """


@dataclass(frozen=True)
class Clocks:
    """What the SM clock is and why, at one moment.

    Attributes:
        sm_mhz, max_sm_mhz: the clock, and the GPU's highest.
        reasons: the driver's bits for what holds the clock down.
        temperature_c: of the GPU.
    """

    sm_mhz: int
    max_sm_mhz: int
    reasons: int
    temperature_c: int

    # NVML's nvmlClocksEventReason…, which had Throttle in its names before.
    LOCKED = 0x2  # by nvidia-smi -ac or -lgc
    POWER_CAP = 0x4
    SLOWDOWN = 0x8 | 0x20 | 0x40 | 0x80  # hardware, thermal twice, power brake

    @property
    def is_locked(self) -> bool:
        """Whether a lock alone holds the clock where it is."""
        return bool(self.reasons & self.LOCKED) and not self.reasons & (
            self.POWER_CAP | self.SLOWDOWN
        )

    @property
    def is_slowed_down(self) -> bool:
        return bool(self.reasons & self.SLOWDOWN)


@dataclass(frozen=True)
class GpuDriver:
    """Questions to NVML about one GPU.

    Attributes:
        nvml: the module ``pynvml``, or what stands for it in a test.
        handle: NVML's, of the GPU.
    """

    nvml: Any
    handle: Any

    @classmethod
    def of(cls, device: "torch.device") -> "GpuDriver":
        """The driver of a CUDA device.

        Raises:
            NotAskable: there is no NVML here, or it does not know the device.
        """
        import pynvml
        import torch

        return cls.by_uuid(f"GPU-{torch.cuda.get_device_properties(device).uuid}", pynvml)

    @classmethod
    def by_uuid(cls, uuid: str, nvml: Any) -> "GpuDriver":
        """The driver of the GPU with this UUID. Raises NotAskable as `of`."""
        try:
            nvml.nvmlInit()
            return cls(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid))
        except nvml.NVMLError as error:
            raise NotAskable(f"NVML: {error}") from None

    def clocks(self) -> Clocks:
        """The clocks now.

        Raises:
            NotAskable: the driver does not say.
        """
        nvml, handle = self.nvml, self.handle
        try:
            return Clocks(
                sm_mhz=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
                max_sm_mhz=nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
                reasons=nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
                temperature_c=nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            )
        except nvml.NVMLError as error:
            raise NotAskable(f"NVML: {error}") from None

    def sm_shares(self, since_us: int) -> tuple[int, dict[int, float]]:
        """How much of the time since ``since_us`` kernels of each process ran.

        Args:
            since_us: as an earlier call returned it, or 0 for all that the driver remembers.

        Returns:
            The time of the newest figure in microseconds, and the largest share by process id.

        Raises:
            NotAskable: the driver does not say.
        """
        nvml = self.nvml
        try:
            found = nvml.nvmlDeviceGetProcessUtilization(self.handle, since_us)
        except nvml.NVMLError as error:
            # How it says that there was nothing in that time.
            if error.value in {nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_SUCCESS}:
                return since_us, {}
            raise NotAskable(f"NVML: {error}") from None
        shares: dict[int, float] = {}
        for sample in found:
            # The buffer holds unused places, and samples older than what was asked for.
            if sample.pid and sample.timeStamp > since_us:
                share = min(sample.smUtil, 100) / 100
                shares[sample.pid] = max(share, shares.get(sample.pid, 0.0))
        return max([since_us, *(sample.timeStamp for sample in found)]), shares


def driver_of(device: "torch.device") -> GpuDriver | None:
    """The driver of a device, or None where there is none to ask."""
    if device.type != "cuda":
        return None
    try:
        return GpuDriver.of(device)
    except NotAskable:
        return None


def gpu_names(nvml: Any) -> tuple[str, ...]:
    """The names of this machine's GPUs, each once; nothing where there is no NVML.

    Asked of the driver, since importing torch for it takes seconds.
    """
    try:
        nvml.nvmlInit()
        handles = map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))
        return tuple(dict.fromkeys(str(nvml.nvmlDeviceGetName(handle)) for handle in handles))
    except nvml.NVMLError:
        return ()
